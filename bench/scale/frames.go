package main

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// frames counts the events in the body of a watch as it is read, in pieces of
// any length. In JSON an event is a line; in protobuf it follows its length, 4
// bytes, the highest first (k8s.io/apimachinery/pkg/util/framer).
type frames struct {
	protobuf bool
	// head is the beginning of the event that is read, where its type is.
	head []byte
	// length is what there is of the length, and left what is still to come
	// of the event.
	length []byte
	left   int
}

// headLength suffices for the type of an event in either encoding.
const headLength = 20

func newFrames(contentType string) *frames {
	return &frames{protobuf: strings.Contains(contentType, "protobuf")}
}

// feed takes in what was read and returns how many events ended in it.
func (f *frames) feed(p []byte) (events, bookmarks int) {
	for len(p) > 0 {
		var ended bool
		if f.protobuf {
			p, ended = f.delimited(p)
		} else {
			p, ended = f.line(p)
		}
		switch {
		case !ended:
		case bytes.Contains(f.head, []byte("BOOKMARK")):
			bookmarks++
		default:
			events++
		}
		if ended {
			f.head = f.head[:0]
		}
	}
	return events, bookmarks
}

// line takes what belongs to one line.
func (f *frames) line(p []byte) (rest []byte, ended bool) {
	text, rest, ended := bytes.Cut(p, []byte("\n"))
	f.keep(text)
	return rest, ended
}

// delimited takes what belongs to one length or to one event.
func (f *frames) delimited(p []byte) (rest []byte, ended bool) {
	if f.left == 0 {
		n := min(len(p), 4-len(f.length))
		f.length = append(f.length, p[:n]...)
		if len(f.length) < 4 {
			return nil, false
		}
		f.left = int(binary.BigEndian.Uint32(f.length))
		f.length = f.length[:0]
		return p[n:], f.left == 0
	}
	n := min(len(p), f.left)
	f.keep(p[:n])
	f.left -= n
	return p[n:], f.left == 0
}

// keep adds to the head what it lacks.
func (f *frames) keep(p []byte) {
	f.head = append(f.head, p[:min(len(p), headLength-len(f.head))]...)
}
