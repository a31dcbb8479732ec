package nbd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAUnixSocketIsForItsOwner(t *testing.T) {
	b := listening(t)
	info, err := os.Stat(b.path)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	if err := b.export.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	if _, err := b.export.Listen(t.Context(), ListenConfig{Network: "unix", Address: b.path}); !errors.Is(err, ErrClosed) {
		t.Errorf("listens after its end: %v", err)
	}
}

func TestASocketWithAServerIsRefusedAndOneWithoutIsReplaced(t *testing.T) {
	b := listening(t)
	again := ListenConfig{Network: "unix", Address: b.path}
	if _, err := b.export.Listen(t.Context(), again); !errors.Is(err, ErrInUse) {
		t.Errorf("on a live socket: %v", err)
	}
	b.dial(Simple).must(request{cmd: cmdFlush}, nil)

	stale := t.TempDir() + "/stale"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := b.export.Listen(t.Context(), ListenConfig{Network: "unix", Address: stale}); err != nil {
		t.Errorf("on a stale socket: %v", err)
	}
	b.path = stale
	b.dial(Simple).must(request{cmd: cmdFlush}, nil)

	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.export.Listen(t.Context(), ListenConfig{Network: "unix", Address: file}); err == nil {
		t.Error("listens on a file")
	}
	if got, _ := os.ReadFile(file); string(got) != "precious" {
		t.Error("the file is lost")
	}
}

func TestTCPIsServedWithTLSOnly(t *testing.T) {
	b := listening(t)
	if _, err := b.export.Listen(t.Context(), ListenConfig{Network: "tcp", Address: "127.0.0.1:0"}); err == nil {
		t.Error("TCP without TLS")
	}
}

// authority makes certificates as files in a folder as libnbd and qemu want them, and texts.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	a.key = a.newKey()
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.pem = a.write("ca-cert.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

// issue makes NAME-cert.pem and NAME-key.pem.
func (a *authority) issue(name string, usage x509.ExtKeyUsage) (cert, key []byte) {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	own := a.newKey()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &own.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(name+"-cert.pem", "CERTIFICATE", der), a.write(name+"-key.pem", "PRIVATE KEY", secret)
}

func (a *authority) write(name, kind string, der []byte) []byte {
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(filepath.Join(a.dir, name), text, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return text
}

// secured is a bed whose door is TLS over TCP, for clients with a certificate.
func secured(t testing.TB) (*bed, *authority) {
	t.Helper()
	a := newAuthority(t)
	cert, key := a.issue("server", x509.ExtKeyUsageServerAuth)
	cfg, err := ParseTLS(cert, key, a.pem)
	if err != nil {
		t.Fatal(err)
	}
	b := newBed(t, bedOptions{lane: engines()["epoll"], buffer: usualPayload})
	addr, err := b.export.Listen(t.Context(), ListenConfig{Network: "tcp", Address: "127.0.0.1:0", TLS: cfg})
	if err != nil {
		t.Fatal(err)
	}
	b.path = addr.String()
	return b, a
}

func (b *bed) haggleTCP() *haggler {
	b.t.Helper()
	n, err := net.Dial("tcp", b.path)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { n.Close() })
	_ = n.SetDeadline(time.Now().Add(20 * time.Second))
	return &haggler{n, b.t}
}

// upgrade has the connection go on over TLS.
func (h *haggler) upgrade(cfg *tls.Config) error {
	h.t.Helper()
	if got := h.last(optStartTLS, nil); got != repAck {
		h.t.Fatalf("STARTTLS: %#x", got)
	}
	c := tls.Client(h.Conn, cfg)
	h.Conn = c
	return c.Handshake()
}

func (a *authority) client(t testing.TB) *tls.Config {
	t.Helper()
	a.issue("client", x509.ExtKeyUsageClientAuth)
	pair, err := tls.LoadX509KeyPair(a.dir+"/client-cert.pem", a.dir+"/client-key.pem")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: "localhost"}
}

func TestBeforeTLSNothingIsTold(t *testing.T) {
	b, _ := secured(t)
	h := b.haggleTCP()
	h.greeting(flagFixedNewstyle)
	for _, o := range []option{optList, optInfo, optGo, optStructuredReply, optExtendedHeaders, optListMetaContext, optSetMetaContext, 99} {
		if got := h.last(o, nil); got != repErrTLSReqd {
			t.Errorf("option %d: %#x", o, got)
		}
	}
	if _, err := h.Write(encodeOption(optExportName, []byte("disk"))); err != nil {
		t.Fatal(err)
	}
	dialed(t, h.Conn, Simple).closed()
}

func TestOverTLSEverythingIsServed(t *testing.T) {
	b, a := secured(t)
	h := b.haggleTCP()
	h.greeting(flagFixedNewstyle)
	if err := h.upgrade(a.client(t)); err != nil {
		t.Fatal(err)
	}
	if got := h.last(optStartTLS, nil); got != repErrInvalid {
		t.Errorf("TLS in TLS: %#x", got)
	}
	h.ask(optExtendedHeaders, nil)
	h.ask(optGo, encodeInfo("disk"))
	c := dialed(t, h.Conn, Extended)
	busy(t, c, 0, 20)
	c.send(request{cmd: cmdDisc}, nil)
	c.closed()
	eventually(t, "the end", func() bool { return b.export.Stats().Conns == 0 })
}

func TestAClientWithoutCertificateIsNotServed(t *testing.T) {
	b, a := secured(t)
	h := b.haggleTCP()
	h.greeting(flagFixedNewstyle)
	cfg := a.client(t)
	cfg.Certificates = nil
	err := h.upgrade(cfg)
	if err == nil { // with TLS 1.3 the client hears of it when it reads
		_, err = h.Read(make([]byte, 1))
	}
	if err == nil {
		t.Error("served")
	}
}

func TestATLSClientThatStallsDoesNotHoldUpTheEnd(t *testing.T) {
	b, a := secured(t)
	h := b.haggleTCP()
	h.greeting(flagFixedNewstyle)
	if err := h.upgrade(a.client(t)); err != nil {
		t.Fatal(err)
	}
	h.ask(optGo, encodeInfo("disk"))
	c := dialed(t, h.Conn, Simple)
	_ = c.net.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	for err := error(nil); err == nil; {
		_, r := c.request(request{cmd: cmdRead, length: testTransfer}, nil)
		_, err = c.net.Write(r)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := b.export.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestParseTLSRefusesWhatIsNoCertificate(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue("server", x509.ExtKeyUsageServerAuth)
	if _, err := ParseTLS(cert, []byte("no key"), nil); err == nil {
		t.Error("a key that is none")
	}
	if _, err := ParseTLS(cert, key, []byte("no authority")); err == nil {
		t.Error("an authority that is none")
	}
	if cfg, err := ParseTLS(cert, key, nil); err != nil || cfg.ClientAuth != tls.NoClientCert || cfg.MinVersion != tls.VersionTLS12 {
		t.Errorf("%+v, %v", cfg, err)
	}
}
