package auth

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

const (
	scramPrefix     = "SCRAM-SHA-256$"
	scramIterations = 10_000 // RFC 7677 asks for 4096 at least; the client computes them, too
	maxIterations   = 1_000_000
)

// NewVerifier makes what a node keeps of a password for SCRAM-SHA-256 (RFC 7677), in the form
// SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY. An error says that the password has characters that
// SASLprep forbids.
func NewVerifier(password []byte) (string, error) {
	var salt [16]byte
	rand.Read(salt[:])
	client, err := scram.SHA256.NewClient("user", string(password), "")
	if err != nil {
		return "", fmt.Errorf("the password can't be used with SCRAM-SHA-256: %w", err)
	}
	c, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt[:]), Iters: scramIterations})
	if err != nil {
		return "", err
	}
	e := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s%d:%s$%s:%s", scramPrefix, c.Iters, e([]byte(c.Salt)), e(c.StoredKey), e(c.ServerKey)), nil
}

// ParseVerifier reads what NewVerifier makes.
func ParseVerifier(text string) (scram.StoredCredentials, error) {
	var c scram.StoredCredentials
	rest, ok := strings.CutPrefix(text, scramPrefix)
	factors, keys, both := strings.Cut(rest, "$")
	iterations, salt, hasSalt := strings.Cut(factors, ":")
	stored, server, hasServer := strings.Cut(keys, ":")
	if !ok || !both || !hasSalt || !hasServer {
		return c, fmt.Errorf("%w: wants %sITERATIONS:SALT$STOREDKEY:SERVERKEY", ErrHash, scramPrefix)
	}
	n, err := strconv.Atoi(iterations)
	if err != nil || n < 4096 || n > maxIterations {
		return c, fmt.Errorf("%w: SCRAM with %q iterations", ErrHash, iterations)
	}
	c.Iters = n
	var raw []byte
	if err := decode64(&raw, salt, &c.StoredKey, stored); err != nil {
		return c, err
	}
	c.Salt = string(raw)
	if err := decode64(&raw, salt, &c.ServerKey, server); err != nil {
		return c, err
	}
	if len(c.StoredKey) != 32 || len(c.ServerKey) != 32 || len(c.Salt) < 8 {
		return c, fmt.Errorf("%w: SCRAM with keys of %d and %d bytes", ErrHash, len(c.StoredKey), len(c.ServerKey))
	}
	return c, nil
}
