package verbs

// PortWatcher is a Provider that knows when it is worth dialling again: its ports go up and down.
type PortWatcher interface {
	// ActivePorts names the local ports that a connection can leave by now. It is cheap enough to be called ten times a
	// second.
	ActivePorts() []string
}
