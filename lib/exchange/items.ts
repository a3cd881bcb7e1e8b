// What an exchange knows of the items of its route. `fastify/item-schemas.ts` makes it, for the schemas and compilers of the app.

import type { FastifyReply } from 'fastify'
import type { ItemDecoder } from '../items/codec.ts'

/** Where in a body an item is. */
export interface Position {
  /** Its number, from 0. */
  readonly index: number
  /** The byte at which it begins. */
  readonly offset: number
}

/** The format of the items of a request. */
export interface Receiving {
  makeDecoder (): ItemDecoder
  /** Whether a bad item is handed to the handler as a value. Otherwise reading fails with its error. */
  readonly keepsInvalid: boolean
  /**
   * Checks an item by the schema.
   *
   * @returns the item, or what the validator puts in its place; a promise of it if the validator is asynchronous
   * @throws {ItemError} FST_ERR_DUPLEX_ITEM
   */
  validate (item: unknown, position: Position): unknown
}

/** The format of the items of a response. */
export interface Sending {
  readonly mediaType: string
  /** Bytes to send when no item was sent for `timeout` milliseconds; null: none. */
  readonly heartbeat: { readonly timeout: number, readonly content: string | Uint8Array } | null
  /**
   * @param index the number of the item, from 0
   * @returns bytes as they are sent, or a text for `frame`
   * @throws {ItemSerializeError} FST_ERR_DUPLEX_ITEM_SERIALIZE
   */
  encode (item: unknown, index: number): string | Uint8Array
  /** @returns items as they are sent, from their texts: at least one */
  frame (texts: readonly string[]): string
  /**
   * @returns the last item of a response that fails, as it is sent; null if the format has none
   * @throws what the user's function for it throws
   */
  encodeFailure (error: Error, index: number): string | Uint8Array | null
}

/** Adds the fields that a response of items has, unless they are set. @returns their names */
export function describeItems (reply: FastifyReply, { mediaType }: Sending): string[] {
  const fields = { 'content-type': mediaType, ...(mediaType === 'text/event-stream' && { 'cache-control': 'no-cache' }) }
  const missing = Object.entries(fields).filter(([name]) => !reply.hasHeader(name))
  for (const [name, value] of missing) reply.header(name, value)
  return missing.map(([name]) => name)
}
