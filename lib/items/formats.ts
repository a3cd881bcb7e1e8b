// Formats: a codec, the schema of its items, and options.

import { constants } from 'node:buffer'
import type * as types from '../../types/items.d.ts'
import { OptionError } from '../errors.ts'
import { jsonSequence } from './json-seq.ts'
import { jsonLines } from './jsonl.ts'
import { serverSentEvents } from './sse.ts'

interface Option { readonly expected: string, readonly allows: (value: unknown) => boolean }

/** An item of JSON is decoded into one string. */
const MAX_ITEM_SIZE = constants.MAX_STRING_LENGTH
/** The longest time of setTimeout(). */
const MAX_HEARTBEAT = 2 ** 31 - 1

const isWholeNumber = (value: unknown, max: number): boolean => Number.isInteger(value) && value as number >= 1 && value as number <= max

const OPTIONS: Readonly<Record<keyof types.ItemOptions, Option>> = {
  maxItemSize: { expected: `a whole number from 1 to ${MAX_ITEM_SIZE}`, allows: (value) => isWholeNumber(value, MAX_ITEM_SIZE) },
  invalid: { expected: '"error" or "item"', allows: (value) => value === 'error' || value === 'item' },
  heartbeat: { expected: `a whole number from 1 to ${MAX_HEARTBEAT}`, allows: (value) => isWholeNumber(value, MAX_HEARTBEAT) },
  problem: { expected: 'true, false or a function', allows: (value) => typeof value === 'boolean' || typeof value === 'function' }
}

export const DEFAULT_ITEM_OPTIONS: types.ResolvedItemOptions = Object.freeze({ maxItemSize: 1024 * 1024, invalid: 'error', problem: true })

/**
 * An option that is undefined keeps its default.
 *
 * @throws {OptionError} FST_ERR_DUPLEX_OPTION
 */
export function makeFormat<Schema, Codec extends types.ItemCodec> (codec: Codec, schema: Schema, options: types.ItemOptions = {}): { schema: Schema, codec: Codec, options: types.ResolvedItemOptions } {
  const resolved = { ...DEFAULT_ITEM_OPTIONS }
  for (const name of Object.keys(options) as (keyof types.ItemOptions)[]) {
    if (!Object.hasOwn(OPTIONS, name)) throw new OptionError(name, 'there is no such option of a format')
    const value = options[name]
    if (value === undefined) continue
    const { expected, allows } = OPTIONS[name]
    if (!allows(value)) throw new OptionError(name, `expected ${expected}`)
    Object.assign(resolved, { [name]: value })
  }
  if (resolved.heartbeat !== undefined && codec.heartbeat === undefined) throw new OptionError('heartbeat', `the codec of ${codec.mediaTypes[0]} has none`)
  return Object.freeze({ schema, codec, options: Object.freeze(resolved) })
}

export const jsonl: types.ItemFormatter = (schema, options) => makeFormat(jsonLines, schema, options) as types.ItemFormat<any, any>
export const jsonSeq: types.ItemFormatter = (schema, options) => makeFormat(jsonSequence, schema, options) as types.ItemFormat<any, any>
export const sse: typeof types.sse = (schema, options) => makeFormat(serverSentEvents, schema, options)

export const problemSchema: typeof types.problemSchema = {
  type: 'object',
  required: ['title', 'status'],
  properties: {
    type: { type: 'string' },
    title: { type: 'string' },
    status: { type: 'integer' },
    detail: { type: 'string' },
    instance: { type: 'string' },
    code: { type: 'string' },
    index: { type: 'integer' },
    offset: { type: 'integer' }
  }
}
