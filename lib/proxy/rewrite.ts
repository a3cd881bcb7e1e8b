// What the app's functions that rewrite heads return.

import type { OutgoingFields } from '../../types/transfer.d.ts'
import { OptionError } from '../errors.ts'

/**
 * Checks the result of `rewriteRequest` or `rewriteResponse`.
 *
 * @throws {OptionError} FST_ERR_DUPLEX_OPTION: it is no head
 */
export function checkedResult<Head extends { headers: OutgoingFields }> (option: string, head: Head): Head {
  if (typeof (head as { then?: unknown } | undefined)?.then === 'function') {
    Promise.resolve(head).catch(ignore)
    throw new OptionError(option, 'it must return a head, not a promise: do asynchronous work in a hook')
  }
  if (typeof head?.headers !== 'object' || head.headers === null) throw new OptionError(option, 'it must return a head')
  return head
}

function ignore (): void {}
