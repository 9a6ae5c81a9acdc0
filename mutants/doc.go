// Mutants is the museum of bugs, `make mutants`: it plants bugs that address
// managers have really shipped into a build of our own code, one at a time,
// and runs the tests that are to catch them.
//
// A bug is a patch beside this file. What comes before its first "--- a/" is
// its label:
//
//	Bug: what is wrong
//	Seen: in which kind of project, and what its users saw
//	Breaks: which promise or rule of package lease
//	Here: why the patch looks as it does (optional)
//	Tests: ./package TestThat|TestOther KEY=VALUE
//
// A line that begins with a space goes on with the field above it, and there
// may be several Tests. TestThat/Part|TestThat/Other are subtests of one test.
// Each test named must fail where the bug is planted, and must pass where it
// is not, or it would prove nothing.
//
// Nothing is written into the working tree: `go test -overlay` takes the
// patched files from build/_mutants, a name that ./... passes over, and
// everything else as it lies there.
// `make mutants ONLY=q` runs the bugs whose names begin so. With -json FILE
// the verdicts are also written there as `go test -json` writes outcomes.
package main
