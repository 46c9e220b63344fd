package tlspsk

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Keys are the pre-shared keys by identity. They don't change: a file that does is parsed anew.
type Keys struct {
	keys map[string][]byte
	weak int
}

const (
	maxIdentity = 1024
	maxKey      = 512
	// strongKey is what RFC 9257, section 6, asks for: 128 bits, if they are random.
	strongKey = 16
)

// ParseKeys reads a file in the form of Mosquitto's psk_file: a line for each identity, a colon, and
// the key in hexadecimal digits. Lines that are empty or begin with # count for nothing. The error
// names every line at fault, and nothing of what stands in it.
func ParseKeys(data []byte) (*Keys, error) {
	k := &Keys{keys: make(map[string][]byte)}
	var errs []error
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.TrimRight(string(line), "\r\n \t")
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		if err := k.add(text); err != nil {
			errs = append(errs, fmt.Errorf("line %d %w", number, err))
		}
	}
	return k, errors.Join(errs...)
}

func (k *Keys) add(line string) error {
	at := strings.LastIndexByte(line, ':')
	if at < 1 {
		return errors.New("wants IDENTITY:KEY")
	}
	identity, text := line[:at], line[at+1:]
	if !utf8.ValidString(identity) || strings.ContainsRune(identity, 0) || len(identity) > maxIdentity {
		return fmt.Errorf("has an identity that is not UTF-8, or longer than %d bytes", maxIdentity)
	}
	if len(text)%2 == 1 { // Mosquitto takes the first digit for a byte
		text = "0" + text
	}
	key, err := hex.DecodeString(text)
	if err != nil || len(key) == 0 || len(key) > maxKey {
		return fmt.Errorf("has a key that is not of 1 to %d bytes in hexadecimal digits", maxKey)
	}
	if k.keys[identity] != nil {
		return errors.New("repeats an identity")
	}
	k.keys[identity] = key
	if len(key) < strongKey {
		k.weak++
	}
	return nil
}

// Find is what Config.Key wants.
func (k *Keys) Find(identity string) (key []byte, ok bool) {
	key, ok = k.keys[identity]
	return key, ok
}

// Len is how many identities there are.
func (k *Keys) Len() int { return len(k.keys) }

// Weak is how many keys have less than 128 bits, and can be guessed by who records a handshake.
func (k *Keys) Weak() int { return k.weak }
