package listener

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// revocations are certificate revocation lists (RFC 5280, section 5), of any number of issuers. As in
// OpenSSL, a client's certificate needs one of its issuer, which is not out of date; a certificate in
// between is looked up where there is one.
type revocations struct {
	lists []*revocation
}

type revocation struct {
	list    *x509.RevocationList
	revoked map[string]struct{} // by serial number

	mu     sync.Mutex
	signed map[string]bool // by issuer's certificate: whether it made the list
}

func loadRevocations(path string) (*revocations, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &revocations{}
	for _, der := range pemBlocks(data, "X509 CRL") {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		one := &revocation{list: list, revoked: make(map[string]struct{}), signed: make(map[string]bool)}
		for _, e := range list.RevokedCertificateEntries {
			one.revoked[string(e.SerialNumber.Bytes())] = struct{}{}
		}
		r.lists = append(r.lists, one)
	}
	if len(r.lists) == 0 {
		return nil, fmt.Errorf("%s holds no revocation list", path)
	}
	return r, nil
}

// expired counts the lists whose next update is due.
func (r *revocations) expired(now time.Time) (n int) {
	for _, l := range r.lists {
		if l.expired(now) {
			n++
		}
	}
	return n
}

func (l *revocation) expired(now time.Time) bool {
	return !l.list.NextUpdate.IsZero() && now.After(l.list.NextUpdate)
}

// isOf tells whether issuer made the list. The same few issuers are asked about all the time.
func (l *revocation) isOf(issuer *x509.Certificate) bool {
	if !bytes.Equal(l.list.RawIssuer, issuer.RawSubject) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	yes, known := l.signed[string(issuer.Raw)]
	if !known {
		yes = l.list.CheckSignatureFrom(issuer) == nil
		l.signed[string(issuer.Raw)] = yes
	}
	return yes
}

// check accepts when one of the chains does.
func (r *revocations) check(chains [][]*x509.Certificate, now time.Time) error {
	var errs []error
	for _, chain := range chains {
		err := r.chain(chain, now)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (r *revocations) chain(chain []*x509.Certificate, now time.Time) error {
	for i, c := range chain {
		issuer := chain[min(i+1, len(chain)-1)] // the authority vouches for itself, and for a chain of one
		found := false
		for _, l := range r.lists {
			if !l.isOf(issuer) {
				continue
			}
			found = true
			if _, is := l.revoked[string(c.SerialNumber.Bytes())]; is {
				return fmt.Errorf("%w: certificate %x is revoked", errRefused, c.SerialNumber)
			}
			if l.expired(now) {
				return fmt.Errorf("%w: the revocation list of %s is out of date since %s", errRefused, issuer.Subject, l.list.NextUpdate)
			}
		}
		if !found && i == 0 {
			return fmt.Errorf("%w: crl holds no revocation list of %s, who issued its certificate", errRefused, issuer.Subject)
		}
	}
	return nil
}
