// Package mqtt is the wire format of MQTT 3.1, 3.1.1 and 5.0: packets to bytes and back.
//
// It is strict: what the specification calls malformed or a protocol error, as far as one packet
// alone can show it, is an *Error with the reason code that the specification names. It holds no
// state and does no I/O, so it knows no session, no limit of this server, and no direction: rules
// about who sent a packet are in the methods named FromClient.
//
// Bytes: Split and Publish.Decode return slices of their input, which are valid as long as the
// caller leaves it alone. Every other Decode copies what it returns. Append methods append to dst
// and keep nothing. Strings and binary data longer than 65,535 bytes can't be encoded and are cut
// off; nothing that was decoded is.
package mqtt
