// Collects garbage before memory is measured.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as (options?: { type: 'minor' }) => void

/** Twice: the second frees what finalizers have released, and waits until the first has freed what it found. */
export function collectGarbage (): void {
  gc()
  gc()
}

/** Twice: what survives the first is moved to the old generation by the second. */
export function collectYoungGarbage (): void {
  gc({ type: 'minor' })
  gc({ type: 'minor' })
}
