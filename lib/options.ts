// The options of register() and of a route: checked once, filled with defaults.

import { maxHeaderSize } from 'node:http'
import type { DuplexOptions } from '../types/index.d.ts'
import { OptionError } from './errors.ts'

export type ResolvedOptions = Required<Omit<DuplexOptions, 'highWaterMark'>> & Pick<DuplexOptions, 'highWaterMark'>

export const DEFAULT_OPTIONS: Readonly<ResolvedOptions> = Object.freeze({
  idleTimeout: 120_000,
  bodyLimit: Infinity,
  maxTrailerSize: maxHeaderSize,
  maxChunkExtensionSize: 16 * 1024,
  drainLimit: 64 * 1024,
  drainTimeout: 1000,
  closeGrace: 10_000,
  maxExchanges: Infinity,
  highWaterMark: undefined
})

/** What setTimeout takes; more would fire at once. */
const MAX_TIMEOUT = 2 ** 31 - 1
const MILLISECONDS: ReadonlySet<string> = new Set(['idleTimeout', 'drainTimeout', 'closeGrace'])

const SMALLEST: Record<keyof DuplexOptions, number> = {
  idleTimeout: 0,
  bodyLimit: 1,
  maxTrailerSize: 0,
  maxChunkExtensionSize: 0,
  drainLimit: 0,
  drainTimeout: 1,
  closeGrace: 0,
  maxExchanges: 1,
  highWaterMark: 1
}

/**
 * `options` over `defaults`.
 *
 * @throws {OptionError} FST_ERR_DUPLEX_OPTION: an option is unknown, or no whole number in its range
 */
export function resolveOptions (options: DuplexOptions, defaults: ResolvedOptions): ResolvedOptions {
  const resolved: ResolvedOptions = { ...defaults }
  for (const name of Object.keys(options) as (keyof DuplexOptions)[]) {
    const smallest = SMALLEST[name]
    if (smallest === undefined) throw new OptionError(name, 'there is no such option')
    const value = options[name]
    if (value === undefined) continue
    const largest = MILLISECONDS.has(name) ? MAX_TIMEOUT : Number.MAX_SAFE_INTEGER
    if (!Number.isInteger(value) || value < smallest || value > largest) {
      throw new OptionError(name, `expected a whole number from ${smallest} to ${largest}`)
    }
    resolved[name] = value
  }
  return resolved
}
