package disk

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// node is a file or folder of the disk.
type node struct {
	fs.LoopbackNode
	disk *Disk
}

// WrapChild implements fs.NodeWrapChilder: what is found or made is a node, too.
func (n *node) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	inner, ok := ops.(*fs.LoopbackNode)
	if !ok {
		return ops
	}
	return &node{LoopbackNode: fs.LoopbackNode{RootData: inner.RootData}, disk: n.disk}
}

// name is the path of something in the folder, relative to the root, and real is where that is kept.
func (n *node) name(name string) string { return filepath.Join(n.Path(n.Root()), name) }
func (n *node) real(name string) string { return filepath.Join(n.disk.store, n.name(name)) }

// Create implements fs.NodeCreater.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	d, path := n.disk, n.real(name)
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := os.Lstat(path)
	made := err != nil
	if made && d.full {
		d.stats.Refused++
		return nil, nil, 0, syscall.ENOSPC
	}
	inode, h, fuseFlags, errno := n.LoopbackNode.Create(ctx, name, flags&^syscall.O_TRUNC, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	if made {
		d.changes = append(d.changes, change{path: n.name(name)})
	}
	f := &file{LoopbackFile: h.(*fs.LoopbackFile), disk: d}
	if flags&syscall.O_TRUNC != 0 {
		if errno := f.resize(0); errno != 0 {
			return nil, nil, 0, errno
		}
	}
	return inode, f, fuseFlags, 0
}

// Open implements fs.NodeOpener.
func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, fuseFlags, errno := n.LoopbackNode.Open(ctx, flags&^syscall.O_TRUNC)
	if errno != 0 {
		return nil, 0, errno
	}
	f := &file{LoopbackFile: h.(*fs.LoopbackFile), disk: n.disk}
	if flags&syscall.O_TRUNC != 0 {
		n.disk.mu.Lock()
		defer n.disk.mu.Unlock()
		if errno := f.resize(0); errno != 0 {
			return nil, 0, errno
		}
	}
	return f, fuseFlags, 0
}

// Mkdir implements fs.NodeMkdirer.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	d := n.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		d.stats.Refused++
		return nil, syscall.ENOSPC
	}
	inode, errno := n.LoopbackNode.Mkdir(ctx, name, mode, out)
	if errno == 0 {
		d.changes = append(d.changes, change{path: n.name(name)})
	}
	return inode, errno
}

// Unlink implements fs.NodeUnlinker.
func (n *node) Unlink(_ context.Context, name string) syscall.Errno { return n.remove(name) }

// Rmdir implements fs.NodeRmdirer.
func (n *node) Rmdir(_ context.Context, name string) syscall.Errno {
	if list, err := os.ReadDir(n.real(name)); err != nil || len(list) > 0 {
		return syscall.ENOTEMPTY
	}
	return n.remove(name)
}

func (n *node) remove(name string) syscall.Errno {
	d, path := n.disk, n.real(name)
	d.mu.Lock()
	defer d.mu.Unlock()
	kept, err := d.keep(path)
	if err != nil {
		return fs.ToErrno(err)
	}
	d.changes = append(d.changes, change{path: n.name(name), kept: kept})
	return 0
}

// Rename implements fs.NodeRenamer, within the disk and without flags.
func (n *node) Rename(_ context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to, ok := parent.(*node)
	if !ok || flags != 0 {
		return syscall.EINVAL
	}
	d, from, path := n.disk, n.real(name), to.real(newName)
	d.mu.Lock()
	defer d.mu.Unlock()
	var kept string
	if _, err := os.Lstat(path); err == nil {
		if kept, err = d.keep(path); err != nil {
			return fs.ToErrno(err)
		}
	}
	if err := os.Rename(from, path); err != nil {
		return fs.ToErrno(err)
	}
	moved(d.changes, n.name(name), to.name(newName))
	d.changes = append(d.changes, change{path: to.name(newName), from: n.name(name), kept: kept})
	return 0
}

// Setattr implements fs.NodeSetattrer.
func (n *node) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	size, ok := in.GetSize()
	if !ok {
		return n.LoopbackNode.Setattr(ctx, h, in, out)
	}
	f, ok := h.(*file)
	if !ok {
		real, err := os.OpenFile(n.real(""), os.O_RDWR, 0)
		if err != nil {
			return fs.ToErrno(err)
		}
		f = &file{LoopbackFile: fs.NewLoopbackFileFromOS(real), disk: n.disk}
		defer f.Release(ctx)
	}
	n.disk.mu.Lock()
	errno := f.resize(int64(size))
	n.disk.mu.Unlock()
	if errno != 0 {
		return errno
	}
	return f.Getattr(ctx, out)
}

// Fsync implements fs.NodeFsyncer: the kernel asks the node, not the open file.
func (n *node) Fsync(ctx context.Context, h fs.FileHandle, flags uint32) syscall.Errno {
	if f, ok := h.(*file); ok {
		return f.Fsync(ctx, flags)
	}
	return syscall.EBADF
}

// CopyFileRange implements fs.NodeCopyFileRanger: whoever copies has to write.
func (n *node) CopyFileRange(context.Context, fs.FileHandle, uint64, *fs.Inode, fs.FileHandle, uint64, uint64, uint64) (uint32, syscall.Errno) {
	return 0, syscall.ENOSYS
}

// Link implements fs.NodeLinker: there is one name for a file.
func (n *node) Link(context.Context, fs.InodeEmbedder, string, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// OpendirHandle implements fs.NodeOpendirHandler.
func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, fuseFlags, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &folder{h.(dirStream), n}, fuseFlags, 0
}

type dirStream interface {
	fs.FileReaddirenter
	fs.FileSeekdirer
	fs.FileReleasedirer
}

// folder is an open folder.
type folder struct {
	dirStream
	n *node
}

// Fsyncdir implements fs.FileFsyncdirer: the names in the folder are sure from now on.
func (f *folder) Fsyncdir(context.Context, uint32) syscall.Errno {
	d := f.n.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if errno := d.sync(); errno != 0 {
		return errno
	}
	name := f.n.name("")
	d.changes = slices.DeleteFunc(d.changes, func(c change) bool { return filepath.Dir(c.path) == filepath.Clean(name) })
	return 0
}

// file is an open file.
type file struct {
	*fs.LoopbackFile
	disk *Disk
}

// PassthroughFd keeps the kernel from going past us.
func (f *file) PassthroughFd() (int, bool) { return 0, false }

func (f *file) fd() int {
	fd, _ := f.LoopbackFile.PassthroughFd()
	return fd
}

// Write implements fs.FileWriter.
func (f *file) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats.Writes++
	if d.full {
		d.stats.Refused++
		return 0, syscall.ENOSPC
	}
	i, err := d.image(f.fd())
	if err == nil {
		err = i.save(off, off+int64(len(data)))
	}
	if err != nil {
		return 0, fs.ToErrno(err)
	}
	return f.LoopbackFile.Write(ctx, data, off)
}

// resize is truncate. Called with mu held.
func (f *file) resize(size int64) syscall.Errno {
	d := f.disk
	i, err := d.image(f.fd())
	if err != nil {
		return fs.ToErrno(err)
	}
	info, err := i.file.Stat()
	if err != nil {
		return fs.ToErrno(err)
	}
	if size > info.Size() && d.full {
		d.stats.Refused++
		return syscall.ENOSPC
	}
	if err := i.save(size, i.size); err != nil {
		return fs.ToErrno(err)
	}
	return fs.ToErrno(syscall.Ftruncate(f.fd(), size))
}

// Allocate implements fs.FileAllocater: as resize, for as much as is asked.
func (f *file) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		d.stats.Refused++
		return syscall.ENOSPC
	}
	if _, err := d.image(f.fd()); err != nil {
		return fs.ToErrno(err)
	}
	return f.LoopbackFile.Allocate(ctx, off, size, mode)
}

// Fsync implements fs.FileFsyncer. The real disk need not hear of it: this process outlives the cut.
func (f *file) Fsync(context.Context, uint32) syscall.Errno {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if errno := d.sync(); errno != 0 {
		return errno
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(f.fd(), &st); err != nil {
		return fs.ToErrno(err)
	}
	if i := d.unsynced[st.Ino]; i != nil {
		delete(d.unsynced, st.Ino)
		return fs.ToErrno(i.file.Close())
	}
	return 0
}
