package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
)

// Serves the part of the kubelet's API that `kubectl logs` needs, to the API server alone. Returns the port.
func serveLogs(own settings, pods *pods) (int32, error) {
	authority, err := os.ReadFile(own.clientCA)
	if err != nil {
		return 0, err
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(authority) {
		return 0, errors.New("the client authority holds no certificate")
	}
	certificate, err := tls.LoadX509KeyPair(own.certificate, own.key)
	if err != nil {
		return 0, err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return 0, err
	}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		output := pods.output(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"))
		if output == nil {
			http.Error(w, "no such container", http.StatusNotFound)
			return
		}
		writeLog(w, r, output)
	})
	server := &http.Server{
		Handler: routes,
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
			MinVersion: tls.VersionTLS12,
		},
	}
	go func() { log.Fatal(server.ServeTLS(listener, "", "")) }()
	return int32(listener.Addr().(*net.TCPAddr).Port), nil
}

// Options: `follow`, `tailLines`, `limitBytes`. What else kubelets know (times, previous runs) is not there.
func writeLog(w http.ResponseWriter, r *http.Request, output *output) {
	file, err := os.Open(output.path)
	if errors.Is(err, os.ErrNotExist) {
		http.Error(w, "container is waiting to start", http.StatusBadRequest)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer file.Close()
	query := r.URL.Query()
	if lines, err := strconv.Atoi(query.Get("tailLines")); err == nil {
		seekLines(file, lines)
	}
	var source io.Reader = file
	if limit, err := strconv.ParseInt(query.Get("limitBytes"), 10, 64); err == nil {
		source = io.LimitReader(file, limit)
	}
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	for {
		// Asked before the read: what was written before the end is then read for sure.
		over, written := output.state()
		if _, err := io.Copy(w, source); err != nil {
			return
		}
		_ = flush.Flush()
		if over || query.Get("follow") != "true" {
			return
		}
		select {
		case <-written:
		case <-r.Context().Done():
			return
		}
	}
}

// Goes to where the last lines begin.
func seekLines(file *os.File, lines int) {
	text, err := io.ReadAll(file)
	if err != nil {
		return
	}
	at := len(text)
	for at > 0 && lines >= 0 {
		at--
		if text[at] == '\n' && at != len(text)-1 {
			lines--
		}
		if lines == 0 {
			at++
			break
		}
	}
	_, _ = file.Seek(int64(at), io.SeekStart)
}
