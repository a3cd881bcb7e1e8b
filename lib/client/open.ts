// The public way to call a server.

import type { ClientCall, OpenOptions } from '../../types/client.d.ts'
import { OptionError } from '../errors.ts'
import { checkNames } from '../options.ts'
import { Agent } from './agent.ts'
import { Call } from './call.ts'
import { limitsOf } from './limits.ts'
import { parseTarget } from './origin.ts'
import { requestStart, writePayload } from './request.ts'

const OPTIONS: Readonly<Record<keyof OpenOptions, true>> = {
  method: true, path: true, query: true, headers: true, payload: true, receive: true, send: true, signal: true, agent: true, headersTimeout: true, bodyTimeout: true, expectTimeout: true, maxHeadSize: true, maxTrailerSize: true, maxChunkExtensionSize: true
}

const defaultAgent = new Agent()

/** See the public types. */
export function open (url: string | URL, options: OpenOptions = {}): ClientCall {
  checkNames(options, OPTIONS)
  const { signal, agent = defaultAgent, query } = options
  signal?.throwIfAborted()
  if (!(agent instanceof Agent)) throw new OptionError('agent', 'expected an Agent')
  const { origin, path } = parseTarget(url)
  const limits = limitsOf(options)
  if (options.method?.toUpperCase() === 'CONNECT' && options.path === undefined) throw new OptionError('path', 'CONNECT needs the host and the port of its target')
  const target = withQuery(options.path ?? path, query)
  const start = requestStart({ ...options, target, host: origin.host, minorVersion: 1 })
  if (start.offersSwitch && start.framing.kind !== 'none' && options.payload === undefined) throw new OptionError('payload', 'a request that switches protocols needs all of its body')
  const call = new Call(start, limits)
  if (signal !== undefined) {
    const onAbort = (): void => { call.destroy(signal.reason) }
    signal.addEventListener('abort', onAbort)
    call.on('close', () => signal.removeEventListener('abort', onAbort))
  }
  agent.send(call, origin, limits)
  if (call.request.framing.kind !== 'none') writePayload(options, call)
  return call
}

function withQuery (path: string, query: OpenOptions['query']): string {
  const added = new URLSearchParams(query).toString()
  return added === '' ? path : `${path}${path.includes('?') ? '&' : '?'}${added}`
}
