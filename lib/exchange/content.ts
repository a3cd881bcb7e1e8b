// What a handler may write to a response: strings and bytes.

import { ContentError } from '../errors.ts'

export function isContent (value: unknown): value is string | NodeJS.ArrayBufferView {
  return typeof value === 'string' || ArrayBuffer.isView(value)
}

/** Also one of another realm, or of a package. */
export function isBlob (value: unknown): value is Blob {
  const tag = Object.prototype.toString.call(value)
  return tag === '[object Blob]' || tag === '[object File]'
}

/**
 * @param value what was written, which is no content
 * @param sendsItems whether the route declares items to send
 */
export function contentError (value: unknown, sendsItems: boolean): Error {
  return new ContentError(nameOf(value), remedyFor(value, sendsItems))
}

function nameOf (value: unknown): string {
  if (value === null || value === undefined) return String(value)
  if (typeof value !== 'object') return `a ${typeof value} (${String(value).slice(0, 20)})`
  return Array.isArray(value) ? 'an array' : `an object (${value.constructor?.name ?? 'without a prototype'})`
}

function remedyFor (value: unknown, sendsItems: boolean): string {
  if (value === null || value === undefined) return 'end the response with reply.duplex.end()'
  if (sendsItems) return 'write items with reply.duplex.send(item)'
  if (isBlob(value)) return 'write the chunks of blob.stream()'
  if (value instanceof ArrayBuffer) return 'write new Uint8Array(buffer)'
  return typeof value === 'object' ? 'declare "duplex: { send: jsonl(Schema) }" and yield or send() items, or write JSON.stringify(value)' : 'write String(value)'
}
