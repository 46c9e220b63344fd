package auth

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Hash is a stored password that can be compared with one that was sent.
type Hash interface {
	// Matches takes as long as the hash was made to take. It may be called from any goroutine.
	Matches(password []byte) bool
}

// ErrHash is what every error of ParseHash wraps.
var ErrHash = errors.New("not a password hash that is known")

// ParseHash reads a hash as mosquitto_passwd writes it ($6$ and $7$), argon2id ($argon2id$, what
// NewHash makes) or bcrypt ($2a$, $2b$, $2y$).
func ParseHash(text string) (Hash, error) {
	switch {
	case strings.HasPrefix(text, "$6$"):
		return parseSHA512(text)
	case strings.HasPrefix(text, "$7$"):
		return parsePBKDF2(text)
	case strings.HasPrefix(text, "$argon2id$"):
		return parseArgon2(text)
	case strings.HasPrefix(text, "$2"):
		if _, err := bcrypt.Cost([]byte(text)); err != nil {
			return nil, fmt.Errorf("%w: bcrypt: %w", ErrHash, err)
		}
		return bcryptHash(text), nil
	}
	return nil, ErrHash
}

func equal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// salted is $6$SALT$HASH: SHA-512 of the password and the salt, once.
type salted struct{ salt, sum []byte }

func parseSHA512(text string) (Hash, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 4 {
		return nil, fmt.Errorf("%w: $6$ wants a salt and a hash", ErrHash)
	}
	var h salted
	if err := decode64(&h.salt, parts[2], &h.sum, parts[3]); err != nil {
		return nil, err
	}
	if len(h.sum) != sha512.Size {
		return nil, fmt.Errorf("%w: $6$ with %d bytes", ErrHash, len(h.sum))
	}
	return h, nil
}

func (h salted) Matches(password []byte) bool {
	d := sha512.New()
	d.Write(password)
	d.Write(h.salt)
	return equal(d.Sum(nil), h.sum)
}

// stretched is $7$ROUNDS$SALT$HASH: PBKDF2 with SHA-512.
type stretched struct {
	rounds    int
	salt, sum []byte
}

// maxRounds bounds what a line of a file can make every CONNECT cost.
const maxRounds = 10_000_000

func parsePBKDF2(text string) (Hash, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 5 {
		return nil, fmt.Errorf("%w: $7$ wants a number of rounds, a salt and a hash", ErrHash)
	}
	var h stretched
	var err error
	if h.rounds, err = strconv.Atoi(parts[2]); err != nil || h.rounds < 1 || h.rounds > maxRounds {
		return nil, fmt.Errorf("%w: $7$ with %q rounds", ErrHash, parts[2])
	}
	if err := decode64(&h.salt, parts[3], &h.sum, parts[4]); err != nil {
		return nil, err
	}
	if len(h.sum) < 16 {
		return nil, fmt.Errorf("%w: $7$ with %d bytes", ErrHash, len(h.sum))
	}
	return h, nil
}

func (h stretched) Matches(password []byte) bool {
	sum, err := pbkdf2.Key(sha512.New, string(password), h.salt, h.rounds, len(h.sum))
	return err == nil && equal(sum, h.sum)
}

func decode64(a *[]byte, textA string, b *[]byte, textB string) (err error) {
	if *a, err = base64.StdEncoding.DecodeString(textA); err == nil {
		*b, err = base64.StdEncoding.DecodeString(textB)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrHash, err)
	}
	return nil
}

// argon is $argon2id$v=19$m=KiB,t=PASSES,p=LANES$SALT$HASH.
type argon struct {
	memory, passes uint32
	lanes          uint8
	salt, sum      []byte
}

// The cost of a new hash: the second choice of RFC 9106, section 4, with less memory, because a broker
// meets bursts of CONNECTs.
const (
	argonMemory = 19 << 10
	argonPasses = 2
)

func parseArgon2(text string) (Hash, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[2] != "v=19" {
		return nil, fmt.Errorf("%w: $argon2id$ wants v=19, parameters, a salt and a hash", ErrHash)
	}
	var h argon
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.passes, &h.lanes); err != nil {
		return nil, fmt.Errorf("%w: $argon2id$ with %q: %w", ErrHash, parts[3], err)
	}
	if h.memory < 8 || h.memory > 1<<20 || h.passes < 1 || h.passes > 64 || h.lanes < 1 {
		return nil, fmt.Errorf("%w: $argon2id$ with %q", ErrHash, parts[3])
	}
	var err error
	if h.salt, err = base64.RawStdEncoding.DecodeString(parts[4]); err == nil {
		h.sum, err = base64.RawStdEncoding.DecodeString(parts[5])
	}
	if err != nil || len(h.sum) < 16 {
		return nil, fmt.Errorf("%w: $argon2id$ with a salt or hash that can't be read", ErrHash)
	}
	return h, nil
}

func (h argon) Matches(password []byte) bool {
	return equal(argon2.IDKey(password, h.salt, h.passes, h.memory, h.lanes, uint32(len(h.sum))), h.sum)
}

// NewHash makes the line part that ParseHash reads: argon2id with a salt of its own.
func NewHash(password []byte) string {
	var salt [16]byte
	rand.Read(salt[:])
	sum := argon2.IDKey(password, salt[:], argonPasses, argonMemory, 1, 32)
	e := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=1$%s$%s", argonMemory, argonPasses, e.EncodeToString(salt[:]), e.EncodeToString(sum))
}

type bcryptHash string

func (h bcryptHash) Matches(password []byte) bool {
	return bcrypt.CompareHashAndPassword([]byte(h), password) == nil
}
