// Every time in this hunt, in milliseconds. What must happen has a bound far above what it takes, for a loaded machine.

/** `idleTimeout` of the routes: quick ones end a silent client at once, patient ones leave a loaded machine its time. */
export const IDLE = { quick: 60, patient: 2500 }
export type Pace = keyof typeof IDLE

export const DRAIN_TIMEOUT = 60
export const CLOSE_GRACE = 150
export const KEEP_ALIVE = 300

/** How long a client waits for what the server may do, but need not. */
export const PATIENCE = 500

/** A child process: from its start to `listen()`. */
export const START_LIMIT = 20_000
/** Every request has had its onResponse. */
export const BALANCE_LIMIT = 8000
/** Two apps have seen the same of a client. */
export const DIFFERENCE_LIMIT = 1500
/** An ordinary request is answered. */
export const ANSWER_LIMIT = 10_000
/** As many exchanges are open as may be. */
export const CENSUS_LIMIT = 15_000
/** `app.close()` ends. */
export const CLOSE_LIMIT = 10_000
/** The process ends by itself after that. */
export const EXIT_LIMIT = 5000
/** A whole case, all of the above included. */
export const CASE_LIMIT = 40_000
/** All runs together that look for the case behind a crash. */
export const BLAME_LIMIT = 20_000

export class TimeLimitError extends Error {}

/** @throws {TimeLimitError} it takes longer than `limit`; no process waits for that */
export async function within<T> (limit: number, what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new TimeLimitError(`${what}: not within ${limit} ms`)), limit).unref()
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer!)
  }
}

/** Whether it comes within the limit; an error counts as coming. */
export async function comesWithin (limit: number, promise: Promise<unknown>): Promise<boolean> {
  try {
    await within(limit, '', promise)
    return true
  } catch (error) {
    return !(error instanceof TimeLimitError)
  }
}
