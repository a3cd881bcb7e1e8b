// The options of register() and of a route. OPTIONS is the only place for their defaults, units and ranges.
// test/documentation/options.test.ts compares it with the README and with the comments in types/index.d.ts.

import { maxHeaderSize } from 'node:http'
import type { FastifyDuplexOptions as DuplexOptions } from '../types/index.d.ts'
import type { ReceiveFormats, SendFormats } from '../types/items.d.ts'
import { OptionError } from './errors.ts'

/** Without a `highWaterMark`, Node's default applies. Without `onSend`, a route that has such hooks is warned about. */
type Unset = 'highWaterMark' | 'onSend'

/** All options, each with a value. */
export type ResolvedOptions = Required<Omit<DuplexOptions, Unset>> & Pick<DuplexOptions, Unset>

/** What a route declares of its items. */
export interface DeclaredItems {
  receive?: ReceiveFormats
  send?: SendFormats
}

type Unit = 'ms' | 'bytes' | 'exchanges' | 'boolean'

interface Option<Value> {
  readonly unit: Unit
  readonly default: Value
  /** For numbers */
  readonly min?: number
}

export const OPTIONS: { readonly [Name in keyof Required<ResolvedOptions>]: Option<ResolvedOptions[Name]> } = {
  idleTimeout: { unit: 'ms', default: 120_000, min: 0 },
  bodyLimit: { unit: 'bytes', default: Infinity, min: 1 },
  maxTrailerSize: { unit: 'bytes', default: maxHeaderSize, min: 0 },
  maxChunkExtensionSize: { unit: 'bytes', default: 16 * 1024, min: 0 },
  drainLimit: { unit: 'bytes', default: 64 * 1024, min: 0 },
  drainTimeout: { unit: 'ms', default: 1000, min: 1 },
  minRate: { unit: 'bytes', default: 0, min: 0 },
  maxAge: { unit: 'ms', default: 0, min: 0 },
  closeGrace: { unit: 'ms', default: 10_000, min: 0 },
  maxExchanges: { unit: 'exchanges', default: Infinity, min: 1 },
  highWaterMark: { unit: 'bytes', default: undefined, min: 1 },
  allowHalfOpen: { unit: 'boolean', default: true },
  onSend: { unit: 'boolean', default: undefined },
  incremental: { unit: 'boolean', default: false }
}

/** The longest timeout in milliseconds: for more, setTimeout() fires at once. */
export const MAX_TIMEOUT = 2 ** 31 - 1

const MAX: Readonly<Record<Exclude<Unit, 'boolean'>, number>> = {
  ms: MAX_TIMEOUT,
  bytes: Number.MAX_SAFE_INTEGER,
  exchanges: Number.MAX_SAFE_INTEGER
}

export const DEFAULT_OPTIONS: Readonly<ResolvedOptions> = Object.freeze(
  Object.fromEntries(Object.entries(OPTIONS).map(([name, option]) => [name, option.default])) as unknown as ResolvedOptions
)

/**
 * The options of a route; null if it is no duplex route.
 *
 * @param duplex what the route has as `duplex`
 * @throws {OptionError} FST_ERR_DUPLEX_OPTION: neither a boolean nor an object
 */
export function optionsOfRoute (duplex: unknown): DuplexOptions & DeclaredItems | null {
  if (duplex === undefined || duplex === false) return null
  if (duplex === true) return {}
  if (Object.prototype.toString.call(duplex) !== '[object Object]') throw new OptionError('duplex', 'expected true, false or an object of options')
  return duplex as DuplexOptions & DeclaredItems
}

/**
 * Refuses an option that is misspelt, rather than ignore it.
 *
 * @param known has every option by its name
 * @throws {OptionError} FST_ERR_DUPLEX_OPTION
 */
export function checkNames (options: object, known: object): void {
  for (const name of Object.keys(options)) {
    if (!Object.hasOwn(known, name)) throw new OptionError(name, 'there is no such option')
  }
}

/**
 * Merges `options` into `defaults`. An option that is undefined keeps its default.
 *
 * @throws {OptionError} FST_ERR_DUPLEX_OPTION: an option is unknown, of another type, or out of range
 */
export function resolveOptions (options: DuplexOptions, defaults: ResolvedOptions): ResolvedOptions {
  const resolved: ResolvedOptions = { ...defaults }
  for (const name of Object.keys(options) as (keyof DuplexOptions)[]) {
    if (!Object.hasOwn(OPTIONS, name)) throw new OptionError(name, 'there is no such option')
    const value = options[name]
    if (value === undefined) continue
    check(name, value)
    Object.assign(resolved, { [name]: value })
  }
  return resolved
}

function check (name: keyof DuplexOptions, value: unknown): void {
  const { unit, min } = OPTIONS[name]
  if (unit === 'boolean') {
    if (typeof value !== 'boolean') throw new OptionError(name, 'expected true or false')
  } else if (!Number.isInteger(value) || value as number < min! || value as number > MAX[unit]) {
    throw new OptionError(name, `expected a whole number from ${min} to ${MAX[unit]}`)
  }
}
