// What is in memory, garbage left out.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void

/** Twice: what finalizers let go of goes with the second, which also waits until what the first has found is freed. */
export function collectGarbage (): void {
  gc()
  gc()
}
