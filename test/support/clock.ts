// A clock for intervals that only a test moves. Timeouts go on by the real clock.

import { mock } from 'node:test'
import type { Test } from 'tap'

/** Stops the clock of `setInterval` until the end of the test. @returns moves it */
export function stopClock (t: Test): (seconds: number) => void {
  mock.timers.enable({ apis: ['setInterval'] })
  t.teardown(() => mock.timers.reset())
  return (seconds) => mock.timers.tick(seconds * 1000)
}
