package chaos

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"syscall"
)

// relayed tells whether the checker can stand between the nodes: it has to know which of them a
// connection comes from.
const relayed = true

// socketOwner finds out which of some processes the other end of a loopback connection belongs to.
// 0: none of them. It is asked for every connection between nodes, so it must be quick also when
// there are many: /proc/net/tcp would not be.
func socketOwner(near, far *net.TCPAddr, pids []int) int {
	inode, err := inode(far, near)
	if err != nil {
		return 0
	}
	link := fmt.Sprintf("socket:[%d]", inode)
	for _, pid := range pids {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		f, err := os.Open(dir)
		if err != nil {
			continue // it has ended
		}
		names, _ := f.Readdirnames(-1)
		_ = f.Close()
		for i := range names { // a new socket is among the last
			if to, err := os.Readlink(dir + "/" + names[len(names)-1-i]); err == nil && to == link {
				return pid
			}
		}
	}
	return 0
}

// Sizes and places in the kernel's inet_diag messages.
const (
	headerSize    = 16
	requestSize   = headerSize + 56
	answerInode   = headerSize + 68
	sockDiag      = 20 // SOCK_DIAG_BY_FAMILY
	netlinkSocket = 4  // NETLINK_SOCK_DIAG
)

// inode asks the kernel for the socket that has this local and this remote address.
func inode(local, remote *net.TCPAddr) (uint32, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, netlinkSocket)
	if err != nil {
		return 0, fmt.Errorf("netlink: %w", err)
	}
	defer func() { _ = syscall.Close(fd) }()
	b := make([]byte, requestSize, 4096)
	binary.NativeEndian.PutUint32(b[0:], requestSize)
	binary.NativeEndian.PutUint16(b[4:], sockDiag)
	binary.NativeEndian.PutUint16(b[6:], syscall.NLM_F_REQUEST)
	r := b[headerSize:]
	r[0], r[1] = syscall.AF_INET, syscall.IPPROTO_TCP
	binary.NativeEndian.PutUint32(r[4:], 1<<32-1) // in any state
	id := r[8:]
	binary.BigEndian.PutUint16(id[0:], uint16(local.Port))
	binary.BigEndian.PutUint16(id[2:], uint16(remote.Port))
	copy(id[4:], local.IP.To4())
	copy(id[20:], remote.IP.To4())
	binary.NativeEndian.PutUint64(id[40:], 1<<64-1) // no cookie
	if err := syscall.Sendto(fd, b, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("netlink: %w", err)
	}
	n, _, err := syscall.Recvfrom(fd, b[:cap(b)], 0)
	if err != nil {
		return 0, fmt.Errorf("netlink: %w", err)
	}
	b = b[:n]
	if n < answerInode+4 || binary.NativeEndian.Uint16(b[4:]) != sockDiag {
		return 0, fmt.Errorf("no socket %s → %s", local, remote)
	}
	return binary.NativeEndian.Uint32(b[answerInode:]), nil
}
