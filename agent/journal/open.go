package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockWait is how long [Open] waits for another agent to let go of the
// journal: an old agent that is told to stop answers what is under way first.
const lockWait = 30 * time.Second

// lockPoll is how often [Open] looks.
const lockPoll = 50 * time.Millisecond

// ErrHeld says that another process has the journal open.
var ErrHeld = errors.New("another agent still holds the journal")

// SetAsideError tells that a journal was not used, why, and where it is now.
type SetAsideError struct {
	Path string // of the journal
	To   string // where the unused file is, for people to look at
	Err  error  // why
}

// Error returns where the file is and why, on one line.
func (e *SetAsideError) Error() string {
	return fmt.Sprintf("journal %s was set aside as %s and begins anew: %v", e.Path, e.To, e.Err)
}

// Unwrap returns why the file was set aside.
func (e *SetAsideError) Unwrap() error { return e.Err }

// Open opens the journal at path for the node with the UID, or creates it
// with its directory. fresh says that the journal does not know of earlier
// assignments, because it was created now or by an agent that ended before it
// called [Journal.Complete]: addresses leased to the node must count as taken
// until something else says that they are free.
//
// A file that cannot be read in full, has another format, or belongs to
// another node UID is set aside beside path, a fresh journal takes its place,
// and [Journal.Notice] tells. An error is returned, and nothing changed, when
// the file system fails or another process holds the journal for longer than
// half a minute ([ErrHeld]).
func Open(path, nodeUID string) (j *Journal, fresh bool, err error) {
	return open(path, nodeUID, lockWait)
}

func open(path, nodeUID string, wait time.Duration) (*Journal, bool, error) {
	if nodeUID == "" {
		return nil, false, fmt.Errorf("open journal %s: the node's UID is not known", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, false, fmt.Errorf("open journal: create its directory (is the host path mounted and writable?): %w", err)
	}
	lock, err := hold(path+".lock", wait)
	if err != nil {
		return nil, false, fmt.Errorf("open journal %s: %w", path, err)
	}
	j, fresh, err := openHeld(path, nodeUID)
	if err != nil {
		return nil, false, errors.Join(fmt.Errorf("open journal: %w", err), lock.Close())
	}
	j.lock = lock
	return j, fresh, nil
}

// hold locks the lock file. bbolt locks its own file as well, but that is no
// help once a file may be set aside: who waits for the lock of a file would
// get it after the file has left its path.
func hold(path string, wait time.Duration) (*os.File, error) {
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock it: %w", err)
	}
	for deadline := time.Now().Add(wait); ; time.Sleep(lockPoll) {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return lock, nil
		case errors.Is(err, syscall.EINTR):
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), lock.Close())
		case time.Now().After(deadline):
			err = fmt.Errorf("%w after %s: end it, or wait until it has ended (fuser %s names it)", ErrHeld, wait, path)
			return nil, errors.Join(err, lock.Close())
		}
	}
}

// openHeld opens the journal whose lock is held.
//
// It always goes on with a new file, made of what the old one holds and put in
// its place by a rename: damage that no reading shows (bbolt's list of free
// pages, the keys of its inner pages) would otherwise break later writes.
func openHeld(path, nodeUID string) (*Journal, bool, error) {
	j := &Journal{path: path}
	kept, fresh, err := read(path, nodeUID)
	switch {
	case err == nil:
	case errors.Is(err, os.ErrNotExist):
		fresh = true
	case environmental(err):
		return nil, false, err
	default:
		fresh = true
		if j.notice, err = setAside(path, err, time.Now()); err != nil {
			return nil, false, err
		}
	}
	if j.db, err = create(path, nodeUID, kept, fresh); err != nil {
		return nil, false, err
	}
	return j, fresh, nil
}

// environmental reports whether the error says nothing of the file itself.
func environmental(err error) bool {
	for _, e := range []error{
		ErrHeld, os.ErrPermission, syscall.EROFS, syscall.EMFILE, syscall.ENFILE,
		syscall.ENOMEM, syscall.ENOTDIR, syscall.EIO,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// setAside renames the file out of the way. Its new name tells why and when.
func setAside(path string, reason error, now time.Time) (*SetAsideError, error) {
	why := "corrupt"
	switch {
	case errors.Is(reason, errOtherNode):
		why = "othernode"
	case errors.Is(reason, errFormat):
		why = "format"
	}
	to := fmt.Sprintf("%s.%s-%d", path, why, now.Unix())
	if err := os.Rename(path, to); err != nil {
		return nil, fmt.Errorf("set %s aside: %w", path, err)
	}
	if err := syncDir(path); err != nil {
		return nil, fmt.Errorf("set %s aside: %w", path, err)
	}
	return &SetAsideError{Path: path, To: to, Err: reason}, nil
}

// syncDir makes names in the directory of path durable.
func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
