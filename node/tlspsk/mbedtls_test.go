package tlspsk

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestMbedTLS builds a small client of the library that constrained devices use.
func TestMbedTLS(t *testing.T) {
	cc := need(t, "cc", "gcc")
	if _, err := os.Stat("/usr/include/mbedtls/ssl.h"); errors.Is(err, fs.ErrNotExist) {
		t.Skip("mbedTLS is not installed (apt-get install libmbedtls-dev)")
	}
	binary := filepath.Join(t.TempDir(), "client")
	if out, err := exec.CommandContext(t.Context(), cc, "-o", binary, "testdata/mbedtls.c", "-lmbedtls", "-lmbedx509", "-lmbedcrypto").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for suite, id := range map[string]uint16{
		"TLS-PSK-WITH-AES-128-CCM-8": 0xC0A8, "TLS-PSK-WITH-AES-256-CCM-8": 0xC0A9, "TLS-PSK-WITH-AES-128-CCM": 0xC0A4,
		"TLS-PSK-WITH-AES-256-CCM": 0xC0A5, "TLS-PSK-WITH-AES-128-GCM-SHA256": 0x00A8, "TLS-PSK-WITH-AES-256-GCM-SHA384": 0x00A9,
		"TLS-PSK-WITH-AES-128-CBC-SHA256": 0x00AE, "TLS-PSK-WITH-AES-256-CBC-SHA384": 0x00AF,
		"TLS-PSK-WITH-CHACHA20-POLY1305-SHA256": 0xCCAB, "TLS-ECDHE-PSK-WITH-CHACHA20-POLY1305-SHA256": 0xCCAC,
		"TLS-ECDHE-PSK-WITH-AES-128-CBC-SHA256": 0xC037, "TLS-ECDHE-PSK-WITH-AES-256-CBC-SHA384": 0xC038,
	} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			e := serveEcho(t, &Config{Key: testKeys.Find})
			echoes := true
			talk(t, &echoes, binary, e.port, "bob", bobKey, suite, "1") // with records of 512 bytes
			e.check(t, expect{tls.VersionTLS12, id, nil})
		})
		t.Run("wrong key "+suite, func(t *testing.T) {
			t.Parallel()
			e := serveEcho(t, &Config{Key: testKeys.Find})
			talk(t, new(bool), binary, e.port, "bob", aliceKey, suite)
			e.check(t, expect{refused: ErrKey})
		})
	}
}
