// The floods: requests that one or more connections pipeline without end.

import type { FloodConfig } from './messages.ts'
import { open, whole } from './states.ts'

export interface Flood extends Pick<FloodConfig, 'transport' | 'first' | 'requests' | 'reads' | 'connections'> {
  name: string
  /** The flood is part of every run, however short. */
  alwaysRuns: boolean
}

const BODY = '5\r\nhello\r\n0\r\n\r\n'

function flood (name: string, requests: string[], options: Partial<Flood> = {}): Flood {
  return { name, requests, transport: 'tcp', first: '', reads: true, connections: 1, alwaysRuns: false, ...options }
}

const MIXED = [whole('/turn'), open('/turn') + BODY, whole('/turn-hook'), open('/short') + BODY, whole('/ordinary', 'GET'), open('/ordinary') + BODY]

export const FLOODS: readonly Flood[] = [
  flood('a hook takes a turn', [whole('/turn-hook')]),
  flood('the handler takes a turn', [whole('/turn')], { alwaysRuns: true }),
  flood('the handler takes a turn, chunked', [open('/turn') + BODY]),
  flood('the handler takes a turn, TLS', [whole('/turn')], { transport: 'tls' }),
  flood('answered at once', [whole('/short')], { alwaysRuns: true }),
  flood('ordinary routes, after an exchange', [whole('/ordinary'), whole('/ordinary', 'GET')], { first: whole('/short'), alwaysRuns: true }),
  flood('all kinds', MIXED),
  flood('all kinds, 10 connections', MIXED, { connections: 10 }),
  flood('all kinds, 10 connections, TLS', MIXED, { connections: 10, transport: 'tls' }),
  flood('all kinds, answers not read', MIXED, { reads: false })
]
