// Lets handlers and hooks of the server under test wait until the parent releases them.

let resolveCurrent: () => void
let current: Promise<void>
renew()

/** Resolves at the next `release()`. */
export function untilReleased (): Promise<void> {
  return current
}

/** Releases all that wait now. Later calls wait for the next release. */
export function release (): void {
  resolveCurrent()
  renew()
}

function renew (): void {
  current = new Promise((resolve) => { resolveCurrent = resolve })
}
