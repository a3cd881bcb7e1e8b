// The head of a response whose `writeHead` other code has wrapped, as the package on-headers does. Such code adds fields when the
// head is about to be sent. We send it, so we call it.

import type { ServerResponse } from 'node:http'
import type { OutgoingFields } from '../../types/index.d.ts'
import { isWriteWrapped, withWrappedHead } from '../node/response.ts'

/** Tells those who transform a body by wrapping `write` that they must not (RFC 9111 section 5.2.2.6): it does not pass them. */
const NO_TRANSFORM = 'no-transform'

/**
 * Lets the wrappers of `writeHead` change the head, and sends it. If that fails, the fields of the response are as before, except
 * those that the wrappers have changed: the answer to the error has them too.
 *
 * @param fields valid fields of the head
 * @param send gets the fields of the head. The response has its status
 */
export function sendWrappedHead (response: ServerResponse, fields: OutgoingFields, send: (fields: OutgoingFields) => void): void {
  const set: OutgoingFields = { ...fields }
  if (isWriteWrapped(response)) set['cache-control'] = [fields['cache-control'] ?? [], NO_TRANSFORM].flat().join(', ')
  const before = setFields(response, set)
  try {
    withWrappedHead(response, () => {
      if (set['cache-control'] !== fields['cache-control']) restoreFields(response, { 'cache-control': set['cache-control'] }, fields)
      send(response.getHeaders())
    })
  } catch (error) {
    restoreFields(response, set, before)
    throw error
  }
}

/** @returns the fields that it had before */
function setFields (response: ServerResponse, fields: OutgoingFields): OutgoingFields {
  const before = response.getHeaders()
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined) response.setHeader(name, value as string)
  }
  return before
}

/** Undoes `setFields`, except for fields that were changed since. */
function restoreFields (response: ServerResponse, fields: OutgoingFields, before: OutgoingFields): void {
  for (const [name, value] of Object.entries(fields)) {
    if (response.getHeader(name) !== value) continue
    if (before[name] === undefined) response.removeHeader(name)
    else response.setHeader(name, before[name] as string)
  }
}
