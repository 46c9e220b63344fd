package listener

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/crypto/ocsp"
)

// chains are the certificates of a listener. A client gets the first that fits the host that it names (RFC 6066,
// section 3) and what it can verify, else the first of all.
type chains []chain

type chain struct {
	pair tls.Certificate
	bare tls.Certificate // without the response, once that is out of date
	next time.Time       // zero: the response has no end, or there is none
}

func loadPairs(s *Spec, logger *slog.Logger) (chains, error) {
	var out chains
	for _, p := range s.Pairs {
		pair, err := tls.LoadX509KeyPair(p.Cert, p.Key)
		if err != nil {
			return nil, fmt.Errorf("cert, key: %w", err)
		}
		c := chain{pair: pair, bare: pair}
		if p.OCSP != "" {
			if err := c.staple(p.OCSP); err != nil {
				return nil, fmt.Errorf("ocsp: %s: %w", p.OCSP, err)
			}
			if c.expired(time.Now()) {
				logger.Error("the OCSP response is out of date: clients get none", "listener", s.URL, "ocsp", p.OCSP, "until", c.next)
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// staple reads the response that goes with the certificate (RFC 6066, section 8; RFC 6960). The file of the
// certificate must hold its issuer's, too.
func (c *chain) staple(path string) error {
	if len(c.pair.Certificate) < 2 {
		return errors.New("the file of the certificate must hold its issuer's certificate, too, who has made the response")
	}
	der, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	issuer, err := x509.ParseCertificate(c.pair.Certificate[1])
	if err != nil {
		return err
	}
	response, err := ocsp.ParseResponseForCert(der, c.pair.Leaf, issuer)
	if err != nil {
		return err
	}
	if response.Status != ocsp.Good {
		return fmt.Errorf("it says that the certificate is not good (status %d)", response.Status)
	}
	c.pair.OCSPStaple, c.next = der, response.NextUpdate
	return nil
}

func (c *chain) expired(now time.Time) bool { return !c.next.IsZero() && now.After(c.next) }

func (c *chain) current() *tls.Certificate {
	if c.expired(time.Now()) { // worse than none: some clients refuse it
		return &c.bare
	}
	return &c.pair
}

func (cs chains) pick(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	for i := range cs {
		if hello.SupportsCertificate(&cs[i].bare) == nil {
			return cs[i].current(), nil
		}
	}
	return cs[0].current(), nil
}
