// Package harness runs real skein processes for tests and speaks to them as clients do.
//
// It owns processes, their ports and folders, and a small MQTT client that does exactly what a
// test tells it to and nothing by itself. It must never know what a broker does inside: it uses
// the binary, its flags, HTTP, the admin service and MQTT.
package harness
