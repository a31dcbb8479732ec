package isertarget

// hire starts the connection's workers, if it shall have any. The serving goroutine calls it once.
func (c *Conn) hire() {
	if c.t.opt.Workers < 2 {
		return
	}
	work := make(chan *task, c.t.opt.Window)
	for range c.t.opt.Workers {
		c.t.wg.Go(func() {
			for k := range work {
				k.run()
			}
		})
	}
	c.work = work
}

// dismiss lets the workers go once they have done what was given to them. The serving goroutine calls it at its end.
func (c *Conn) dismiss() {
	if c.work != nil {
		close(c.work)
	}
}

// perform has a command carried out: by a worker, else at once.
func (c *Conn) perform(k *task) {
	if c.work == nil {
		k.run()
		return
	}
	c.work <- k
}
