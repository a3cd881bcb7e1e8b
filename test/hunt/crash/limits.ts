// All times of this hunt, in milliseconds. Limits for what must happen are generous, because the machine may be loaded.

/** `idleTimeout` of the routes. Quick routes end silent clients soon, patient routes never end a client on a slow machine. */
export const IDLE = { quick: 60, patient: 2500 }
export type Pace = keyof typeof IDLE

export const DRAIN_TIMEOUT = 60
export const CLOSE_GRACE = 150
export const KEEP_ALIVE = 300

/** How long a client waits for something that the server may do, but need not do. */
export const WAIT_LIMIT = 500

/** From the start of a child process to `listen()`. */
export const START_LIMIT = 20_000
/** Until onResponse has run for every request. */
export const AUDIT_LIMIT = 8000
/** Until the hooks of two apps have seen the same. */
export const DIFFERENCE_LIMIT = 1500
/** Until an ordinary request is answered. */
export const ANSWER_LIMIT = 10_000
/** Until `maxExchanges` exchanges are open. */
export const CENSUS_LIMIT = 15_000
/** Until `app.close()` has resolved. */
export const CLOSE_LIMIT = 10_000
/** Until the process has exited by itself after that. */
export const EXIT_LIMIT = 5000
/** A whole case, including all of the above. */
export const CASE_LIMIT = 40_000
/** All bisection runs together. */
export const BISECT_LIMIT = 20_000

export class TimeLimitError extends Error {}

/** @throws {TimeLimitError} if it takes longer than `limit`. The timer does not keep the process alive. */
export async function within<T> (limit: number, what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout
  const timeout = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new TimeLimitError(`${what} took longer than ${limit} ms`)), limit).unref()
  })
  try {
    return await Promise.race([promise, timeout])
  } finally {
    clearTimeout(timer!)
  }
}

/** Whether the promise resolves or rejects within the limit. */
export async function settlesWithin (limit: number, promise: Promise<unknown>): Promise<boolean> {
  try {
    await within(limit, '', promise)
    return true
  } catch (error) {
    return !(error instanceof TimeLimitError)
  }
}
