package chaos

import "syscall"

// dieWithParent makes a node end with a checker that is killed.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
