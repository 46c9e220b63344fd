// Package tlspsk is the server's side of TLS with external pre-shared keys and no certificates:
// TLS 1.3 (RFC 8446, psk_dhe_ke and psk_ke) and the PSK and ECDHE_PSK suites of TLS 1.2 (RFC 4279,
// 5487, 5489, 6655, 7905, 8442), which crypto/tls lacks.
//
// It owns the handshake, the record layer, and the format of the file of keys. It must never let a
// client find out whether an identity exists: an unknown one and a wrong key take the same path to the
// same alert. It does not resume sessions, renegotiate, or take early data (a client that sends some is
// served without it), and it speaks CBC suites only under encrypt-then-MAC (RFC 7366), which leaves no
// padding to be asked about.
//
// An idle connection holds no buffer: what Read waits for comes into its caller's memory.
package tlspsk
