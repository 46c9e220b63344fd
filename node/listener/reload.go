package listener

// Reload reads certificates and keys again, for connections to come. Those that can't be read leave the
// ones before in force, with an error in the log.
func (l *Listener) Reload() {
	if l.guard == nil {
		return
	}
	if err := l.guard.load(); err != nil {
		l.config.Logger.Error("the listener keeps the certificates and keys that it has", "listener", l.config.Spec.URL, "error", err)
		return
	}
	l.config.Logger.Info("certificates and keys were read again", "listener", l.config.Spec.URL)
}
