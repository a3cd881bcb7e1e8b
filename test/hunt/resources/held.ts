// What handlers and hooks of the server under test wait for: the parent lets them go.

let release_: () => void
let current: Promise<void>
renew()

/** Settles when the parent says so. */
export function held (): Promise<void> {
  return current
}

/** Lets go all that wait; who comes later waits again. */
export function release (): void {
  release_()
  renew()
}

function renew (): void {
  current = new Promise((resolve) => { release_ = resolve })
}
