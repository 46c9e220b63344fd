// Package disk is a disk that can fail, for the fault checker: a folder, mounted with FUSE over another
// one, that forgets what was not synced when its power is cut, and that can be full or refuse to sync.
//
// It owns what a POSIX file system may do and a friendly one hardly ever does. Of what was written to a
// file since its last fsync, a power cut keeps any part, down to sectors of 512 bytes. A name that was
// made, renamed or removed is only sure once its folder was synced; the last of those changes may be lost.
//
// It must never lose what was synced, or be used for anything that matters. It needs Linux, root and
// /dev/fuse.
package disk
