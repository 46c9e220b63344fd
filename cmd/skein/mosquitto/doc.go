// Package mosquitto turns a Mosquitto configuration into a node's, and says of each of its lines what
// became of it.
//
// It owns what it knows of mosquitto.conf. It must never make a broker more open than the one that it
// read, nor leave an option out without saying so.
package mosquitto
