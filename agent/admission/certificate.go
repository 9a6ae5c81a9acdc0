package admission

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// The names of what the chart installs for the webhook: Service and Secret in
// the release's namespace, and the two webhook configurations.
const (
	ServiceName       = "holdfast-webhook"
	SecretName        = "holdfast-webhook"
	ConfigurationName = "holdfast"
)

// The keys of the Secret's data, all PEM.
const (
	keyCertificate = "tls.crt"
	keyPrivate     = "tls.key"
	keyAuthorities = "ca.crt"
)

const (
	// lifetime is how long a certificate is valid, and renewal how long before
	// its end there is another.
	lifetime = 365 * 24 * time.Hour
	renewal  = lifetime / 3
	// skew is how far clocks may be apart.
	skew = time.Hour
)

// Certificate is what the webhook serves with, and what API servers trust it
// by.
type Certificate struct {
	// Certificate and Key are those of the server, PEM.
	Certificate, Key []byte
	// Authorities are the certificates that API servers are to trust, PEM:
	// the one that signed Certificate, and that of the certificate before it,
	// with which some agents still serve for a moment.
	Authorities []byte
}

// Host returns the name that API servers call the webhook of a namespace by.
func Host(namespace string) string { return ServiceName + "." + namespace + ".svc" }

// NewCertificate returns a certificate for the hosts, names or IP addresses,
// that is valid from now for a year. The key of its authority is thrown away:
// the next certificate has another. before is the certificate that it follows.
func NewCertificate(now time.Time, before Certificate, hosts ...string) (Certificate, error) {
	authority, sign, err := newAuthority(now)
	if err != nil {
		return Certificate{}, fmt.Errorf("make an authority for the webhook: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Certificate{}, fmt.Errorf("make a key for the webhook: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: hosts[0]},
		NotBefore: now.Add(-skew), NotAfter: now.Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, key.Public(), sign)
	if err != nil {
		return Certificate{}, fmt.Errorf("make a certificate for the webhook: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Certificate{}, fmt.Errorf("write the key of the webhook: %w", err)
	}
	return Certificate{
		Certificate: block("CERTIFICATE", der),
		Key:         block("PRIVATE KEY", private),
		Authorities: append(block("CERTIFICATE", authority.Raw), before.authority(now)...),
	}, nil
}

func newAuthority(now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "holdfast-webhook " + now.UTC().Format(time.RFC3339)},
		NotBefore: now.Add(-skew), NotAfter: now.Add(lifetime),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	authority, err := x509.ParseCertificate(der)
	return authority, key, err
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// authority returns the authority that signed the certificate, PEM, or nothing
// if it is not valid any more.
func (c Certificate) authority(now time.Time) []byte {
	first, _ := pem.Decode(c.Authorities)
	if first == nil {
		return nil
	}
	parsed, err := x509.ParseCertificate(first.Bytes)
	if err != nil || now.After(parsed.NotAfter) {
		return nil
	}
	return pem.EncodeToMemory(first)
}

// errNotYet is that of a certificate that is not there.
var errNotYet = errors.New("there is no certificate yet")

// Check returns why the certificate needs to be followed by another: it is
// missing or damaged, for another host, not trusted by its own authorities, or
// near its end.
func (c Certificate) Check(now time.Time, host string) error {
	if len(c.Certificate) == 0 {
		return errNotYet
	}
	pair, err := tls.X509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.Authorities)
	_, err = pair.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: now})
	if err != nil {
		return err
	}
	if end := pair.Leaf.NotAfter; now.After(end.Add(-renewal)) {
		return fmt.Errorf("it ends at %s", end.UTC().Format(time.RFC3339))
	}
	return nil
}

// Data returns the certificate as the data of a Secret.
func (c Certificate) Data() map[string][]byte {
	return map[string][]byte{keyCertificate: c.Certificate, keyPrivate: c.Key, keyAuthorities: c.Authorities}
}

// CertificateOf returns what is in the data of a Secret.
func CertificateOf(data map[string][]byte) Certificate {
	return Certificate{Certificate: data[keyCertificate], Key: data[keyPrivate], Authorities: data[keyAuthorities]}
}

// Equal reports whether both are the same.
func (c Certificate) Equal(d Certificate) bool {
	return slices.EqualFunc([][]byte{c.Certificate, c.Key, c.Authorities}, [][]byte{d.Certificate, d.Key, d.Authorities}, bytes.Equal)
}
