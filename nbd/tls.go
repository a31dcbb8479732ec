package nbd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ParseTLS makes the configuration for a ListenConfig from PEM texts: the server's certificate and key and, unless it is
// empty, the authority that clients need a certificate of.
func ParseTLS(cert, key, clientCA []byte) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, &Error{Op: "read certificate and key", Err: err}
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if len(clientCA) == 0 {
		return cfg, nil
	}
	cfg.ClientCAs, cfg.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !cfg.ClientCAs.AppendCertsFromPEM(clientCA) {
		return nil, &Error{Op: "read certificate authority", Err: errors.New("there is no certificate in it")}
	}
	return cfg, nil
}

// pump gives the lane one end of a socketpair and carries what a TLS client says to the other, and back. What it
// costs is a copy each way, besides the encryption.
func (l *listener) pump(h *handshake, o ConnOptions) (*Conn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(pair[1]), "nbd")
	near, err := net.FileConn(file)
	file.Close()
	if err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	served, err := h.hub.serve(pair[0], o)
	if err != nil {
		unix.Close(pair[0])
		near.Close()
		return nil, err
	}
	l.wait.Add(1)
	go func() {
		defer l.wait.Done()
		carry(h.conn.(*tls.Conn), near.(*net.UnixConn), served)
	}()
	return served, nil
}

// carry ends when the lane has ended the connection and its last reply has left, or the client is gone or takes nothing.
func carry(client *tls.Conn, near *net.UnixConn, served *Conn) {
	in := make(chan struct{})
	go func() {
		defer close(in)
		_, _ = io.Copy(near, client)
		_ = near.CloseWrite() // the lane sees the end of the requests
	}()
	go func() {
		<-served.Done()
		_ = client.SetDeadline(time.Now().Add(drainGrace))
	}()
	if _, err := io.Copy(client, near); err == nil {
		_ = client.CloseWrite()
	}
	client.Close()
	near.Close()
	<-in
	<-served.Done()
}
