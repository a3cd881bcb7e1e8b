// The Connection field: is the connection closed after a message, as far as its sender decides (RFC 9112 section 9.3)?

import type { Framing, OutgoingFields } from '../../types/transfer.d.ts'
import { listElements } from './field-lines.ts'

/**
 * Whether a `connection` field asks to close the connection (RFC 9112 section 9.6). In a head to send, all other options are for the
 * writer to decide, and are dropped.
 */
export function asksToClose (connection: OutgoingFields[string]): boolean {
  return connection !== undefined && listElements(connection).includes('close')
}

/** Whether a message closes its connection: it asks for that, it is HTTP/1.0 without `keep-alive`, or its body ends with the connection. */
export function shouldClose (minorVersion: number, connection: string | undefined, framing?: Framing): boolean {
  if (framing?.kind === 'close' || asksToClose(connection)) return true
  return minorVersion === 0 && !listElements(connection).includes('keep-alive')
}
