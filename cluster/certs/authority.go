package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/skein-mqtt/skein/proto/certname"
)

// The files of an authority's folder, and of a bearer's.
const (
	CAFile   = "ca.pem"
	CAKey    = "ca.key"
	CertFile = "cert.pem"
	KeyFile  = "key.pem"
	// GossipFile holds the keys that gossip is encrypted with: see package membership.
	GossipFile = "gossip.keys"
)

const (
	caLife = 10 * 365 * 24 * time.Hour
	// Life is how long a certificate is valid unless somebody says otherwise.
	Life = 365 * 24 * time.Hour
	// early lets a certificate be used at once on hosts whose clocks are behind.
	early = time.Hour
)

// ErrExists: the folder holds an authority already.
var ErrExists = errors.New("there is an authority already")

// Authority signs certificates of one cluster.
type Authority struct {
	Cluster string
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
}

// Create makes an authority in a folder, which is made if need be: ErrExists. Its private key is for the folder's
// owner alone, and nodes don't need it.
func Create(dir, cluster string) (*Authority, error) {
	if cluster == "" {
		return nil, errors.New("the cluster's name is empty")
	}
	if _, err := os.Stat(filepath.Join(dir, CAKey)); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, errors.Join(ErrExists, err))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{Organization: []string{cluster}, CommonName: "skein authority"}, IsCA: true, BasicConstraintsValid: true,
		MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, key, err := sign(template, caLife, nil, nil)
	if err != nil {
		return nil, err
	}
	if err := writePair(filepath.Join(dir, CAFile), filepath.Join(dir, CAKey), cert, key); err != nil {
		return nil, err
	}
	// What is issued can be issued again, but not by another authority.
	return &Authority{Cluster: cluster, cert: cert, key: key}, syncFiles(dir, filepath.Join(dir, CAFile), filepath.Join(dir, CAKey))
}

// Open reads the authority of a folder.
func Open(dir string) (*Authority, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, CAFile), filepath.Join(dir, CAKey))
	if err != nil {
		return nil, fmt.Errorf("the authority: %w", err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA || len(pair.Leaf.Subject.Organization) != 1 {
		return nil, fmt.Errorf("%s holds no authority that 'skein certs init' has made", dir)
	}
	return &Authority{Cluster: pair.Leaf.Subject.Organization[0], cert: pair.Leaf, key: key}, nil
}

// Issue writes a certificate for name, its key and the authority's certificate into a folder, which is made if need
// be. hosts are names and addresses under which a node's own ports are reached; loopback is always among them.
func (a *Authority) Issue(dir string, name certname.Name, hosts []string, life time.Duration) error {
	if name.Cluster != a.Cluster {
		return fmt.Errorf("this is the authority of cluster %q, not of %q", a.Cluster, name.Cluster)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{Organization: []string{a.Cluster}, CommonName: name.Node + name.Operator}, URIs: []*url.URL{name.URI()},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	if name.Node != "" {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		for _, h := range append([]string{"localhost", "127.0.0.1", "::1"}, hosts...) {
			if ip := net.ParseIP(h); ip != nil {
				template.IPAddresses = append(template.IPAddresses, ip)
			} else {
				template.DNSNames = append(template.DNSNames, h)
			}
		}
	}
	cert, key, err := sign(template, life, a.cert, a.key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := writePEM(filepath.Join(dir, CAFile), "CERTIFICATE", a.cert.Raw); err != nil {
		return err
	}
	return writePair(filepath.Join(dir, CertFile), filepath.Join(dir, KeyFile), cert, key)
}

// Fresh tells whether a folder holds a certificate of this authority for name that has at least a third of its life
// before it.
func (a *Authority) Fresh(dir string, name certname.Name) bool {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, CertFile), filepath.Join(dir, KeyFile))
	if err != nil || pair.Leaf.CheckSignatureFrom(a.cert) != nil {
		return false
	}
	got, err := certname.Of(pair.Leaf)
	life := pair.Leaf.NotAfter.Sub(pair.Leaf.NotBefore)
	return err == nil && got == name && time.Until(pair.Leaf.NotAfter) > life/3
}

// sign makes a key and a certificate for it; without a parent it signs itself.
func sign(template *x509.Certificate, life time.Duration, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = time.Now().Add(-early), time.Now().Add(life)
	if parent == nil {
		parent, signer = template, key
	} else if template.NotAfter.After(parent.NotAfter) {
		return nil, nil, fmt.Errorf("the authority itself is valid until %s only", parent.NotAfter.Format(time.DateOnly))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}
