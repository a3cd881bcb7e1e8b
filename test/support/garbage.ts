// Collects garbage before memory is measured.

import { queryObjects, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as (options?: { type: 'minor' }) => void

/** Twice: the second frees what finalizers have released, and waits until the first has freed what it found. */
export function collectGarbage (): void {
  gc()
  gc()
}

/** The number of objects and functions that are in use, but for those without a prototype. */
export function countObjects (): number {
  return queryObjects(Object, { format: 'count' })
}

/** Twice: what survives the first is moved to the old generation by the second. */
export function collectYoungGarbage (): void {
  gc({ type: 'minor' })
  gc({ type: 'minor' })
}
