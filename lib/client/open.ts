// The public way to call a server.

import { maxHeaderSize } from 'node:http'
import type { ClientCall, OpenOptions } from '../../types/client.d.ts'
import { OptionError } from '../errors.ts'
import { OPTIONS as ROUTE_OPTIONS, MAX_TIMEOUT } from '../options.ts'
import { Agent } from './agent.ts'
import { Call, type CallLimits } from './call.ts'
import type { ConnectionTimeouts } from './connection.ts'
import { parseTarget } from './origin.ts'
import { requestStart, writePayload } from './request.ts'

/** Every option: one that is misspelt must not be ignored. */
const OPTIONS: Readonly<Record<keyof OpenOptions, true>> = {
  method: true, path: true, query: true, headers: true, payload: true, receive: true, send: true, signal: true, agent: true, headersTimeout: true, bodyTimeout: true, expectTimeout: true, maxHeadSize: true, maxTrailerSize: true, maxChunkExtensionSize: true
}

export const DEFAULT_LIMITS: CallLimits & ConnectionTimeouts = Object.freeze({
  headersTimeout: 60_000,
  bodyTimeout: 300_000,
  expectTimeout: 1000,
  maxHeadSize: maxHeaderSize,
  maxTrailerSize: ROUTE_OPTIONS.maxTrailerSize.default,
  maxChunkExtensionSize: ROUTE_OPTIONS.maxChunkExtensionSize.default
})

const defaultAgent = new Agent()

/** See the public types. */
export function open (url: string | URL, options: OpenOptions = {}): ClientCall {
  for (const name of Object.keys(options)) {
    if (!Object.hasOwn(OPTIONS, name)) throw new OptionError(name, 'there is no such option')
  }
  const { signal, agent = defaultAgent } = options
  signal?.throwIfAborted()
  const { origin, path } = parseTarget(url)
  const limits = limitsOf(options)
  const call = new Call(requestStart({ ...options, target: options.path ?? withQuery(path, options.query), host: origin.host, minorVersion: 1 }), limits)
  if (signal !== undefined) {
    const onAbort = (): void => { call.destroy(signal.reason) }
    signal.addEventListener('abort', onAbort)
    call.on('close', () => signal.removeEventListener('abort', onAbort))
  }
  ;(agent as Agent).send(call, origin, limits)
  if (call.request.framing.kind !== 'none') writePayload(options, call)
  return call
}

function limitsOf (options: OpenOptions): typeof DEFAULT_LIMITS {
  const limits: Record<string, number> = { ...DEFAULT_LIMITS }
  for (const name of Object.keys(limits) as (keyof typeof DEFAULT_LIMITS)[]) {
    const { [name]: value } = options
    if (value === undefined) continue
    if (!Number.isInteger(value) || value < 0 || (name.endsWith('Timeout') && value > MAX_TIMEOUT)) throw new OptionError(name, 'expected a whole number from 0')
    limits[name] = value
  }
  return limits as unknown as typeof DEFAULT_LIMITS
}

function withQuery (path: string, query: OpenOptions['query']): string {
  const added = new URLSearchParams(query).toString()
  return added === '' ? path : `${path}${path.includes('?') ? '&' : '?'}${added}`
}
