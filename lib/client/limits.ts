// The limits of a call: what it takes from a server, and how long it waits.

import { maxHeaderSize } from 'node:http'
import { OptionError } from '../errors.ts'
import { OPTIONS, MAX_TIMEOUT } from '../options.ts'
import type { ConnectionTimeouts } from './connection.ts'
import type { CallLimits } from './response-reader.ts'

export type Limits = CallLimits & ConnectionTimeouts

export const DEFAULT_LIMITS: Limits = Object.freeze({
  headersTimeout: 60_000,
  bodyTimeout: 300_000,
  expectTimeout: 1000,
  maxHeadSize: maxHeaderSize,
  maxTrailerSize: OPTIONS.maxTrailerSize.default,
  maxChunkExtensionSize: OPTIONS.maxChunkExtensionSize.default
})

/** @throws {OptionError} FST_ERR_DUPLEX_OPTION */
export function limitsOf (options: Partial<Limits>): Limits {
  const limits: Record<string, number> = { ...DEFAULT_LIMITS }
  for (const name of Object.keys(limits) as (keyof Limits)[]) {
    const { [name]: value } = options
    if (value === undefined) continue
    if (!Number.isInteger(value) || value < 0 || (name.endsWith('Timeout') && value > MAX_TIMEOUT)) throw new OptionError(name, 'expected a whole number from 0')
    limits[name] = value
  }
  return limits as unknown as Limits
}
