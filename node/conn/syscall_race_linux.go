//go:build linux && race

package conn

import "syscall"

// These tell the race detector that what was written comes before what is read.

func readSocket(fd int32, b []byte) (int, syscall.Errno) {
	return number(syscall.Read(int(fd), b))
}

func writeSocket(fd int32, b []byte) (int, syscall.Errno) {
	return number(syscall.Write(int(fd), b))
}

func number(n int, err error) (int, syscall.Errno) {
	if err != nil {
		return 0, err.(syscall.Errno)
	}
	return n, 0
}
