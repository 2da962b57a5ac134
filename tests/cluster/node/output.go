package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// What a container writes, in one file: stdout and stderr come through a pipe each, as container runtimes read them, so the order
// between the two is not kept to the byte.
type output struct {
	path    string
	writing sync.WaitGroup

	mutex sync.Mutex
	file  *os.File
	pipes []*os.File
	// Closed and replaced at each write; `over` once nothing more will come.
	written chan struct{}
	over    bool
}

func newOutput(folder, container string) *output {
	return &output{path: filepath.Join(folder, container+".log"), written: make(chan struct{})}
}

// Gives a command its stdout and stderr. What an earlier run of the container wrote is dropped.
func (o *output) attach(command *exec.Cmd) error {
	file, err := os.Create(o.path)
	if err != nil {
		return err
	}
	o.mutex.Lock()
	o.file, o.over = file, false
	o.mutex.Unlock()
	for _, target := range []*io.Writer{&command.Stdout, &command.Stderr} {
		from, to, err := os.Pipe()
		if err != nil {
			return err
		}
		*target = to
		o.pipes = append(o.pipes, to)
		o.writing.Add(1)
		go func() {
			defer o.writing.Done()
			defer from.Close()
			_, _ = io.Copy(o, from)
		}()
	}
	return nil
}

// The process has its ends of the pipes now; ours would keep them open.
func (o *output) started() {
	for _, pipe := range o.pipes {
		pipe.Close()
	}
	o.pipes = nil
}

func (o *output) Write(bytes []byte) (int, error) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	count, err := o.file.Write(bytes)
	close(o.written)
	o.written = make(chan struct{})
	return count, err
}

// Waits until all was read that the container wrote.
func (o *output) drain() {
	o.writing.Wait()
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.over = true
	o.file.Close()
	close(o.written)
	o.written = make(chan struct{})
}

// Whether all is written; if not, what will be closed at the next write.
func (o *output) state() (bool, <-chan struct{}) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return o.over, o.written
}
