package tlspsk

import (
	"errors"
	"fmt"
)

// alert is a description of RFC 8446, section 6.
type alert uint8

const (
	alertCloseNotify           alert = 0
	alertUnexpectedMessage     alert = 10
	alertBadRecordMAC          alert = 20
	alertRecordOverflow        alert = 22
	alertHandshakeFailure      alert = 40
	alertIllegalParameter      alert = 47
	alertDecodeError           alert = 50
	alertDecryptError          alert = 51
	alertProtocolVersion       alert = 70
	alertInternalError         alert = 80
	alertInappropriateFallback alert = 86
	alertUserCanceled          alert = 90
	alertMissingExtension      alert = 109
)

var alertNames = map[alert]string{
	alertCloseNotify: "close_notify", alertUnexpectedMessage: "unexpected_message", alertBadRecordMAC: "bad_record_mac",
	alertRecordOverflow: "record_overflow", alertHandshakeFailure: "handshake_failure", alertIllegalParameter: "illegal_parameter",
	alertDecodeError: "decode_error", alertDecryptError: "decrypt_error", alertProtocolVersion: "protocol_version",
	alertInternalError: "internal_error", alertInappropriateFallback: "inappropriate_fallback",
	alertUserCanceled: "user_canceled", alertMissingExtension: "missing_extension",
}

func (a alert) String() string {
	if name, ok := alertNames[a]; ok {
		return name
	}
	return fmt.Sprintf("alert %d", uint8(a))
}

// Why a connection was refused or has broken.
var (
	// ErrKey: the identity is unknown or the key is another one. Which of the two is not told to anybody.
	ErrKey = errors.New("tlspsk: unknown identity or wrong key")
	// ErrProtocol: the client broke the protocol, or offers nothing that is supported here.
	ErrProtocol = errors.New("tlspsk")
	// ErrAlert: the client ended the connection with a fatal alert.
	ErrAlert = errors.New("tlspsk: the client refused")
	// ErrNoHandshake: Read or Write before HandshakeContext has returned nil.
	ErrNoHandshake = errors.New("tlspsk: no handshake has been completed")
)

// failure is an error that the client is told with a fatal alert.
type failure struct {
	alert alert
	err   error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(a alert, format string, args ...any) error {
	return &failure{a, fmt.Errorf("%w: %s (%s)", ErrProtocol, fmt.Sprintf(format, args...), a)}
}

// errBadKey is one value, so that no two ways to it can differ.
var errBadKey = &failure{alertDecryptError, ErrKey}

// alertOf is what the client is told of an error; false: nothing.
func alertOf(err error) (alert, bool) {
	var f *failure
	if errors.As(err, &f) {
		return f.alert, true
	}
	return 0, false
}
