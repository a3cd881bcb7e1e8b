// Floods: what one connection, or some, can pipeline without end.

import type { FloodConfig } from './messages.ts'
import { open, whole } from './states.ts'

export interface Flood extends Pick<FloodConfig, 'transport' | 'first' | 'requests' | 'reads' | 'connections'> {
  name: string
  /** Whether it is in every run, however short. */
  always: boolean
}

const BODY = '5\r\nhello\r\n0\r\n\r\n'

function flood (name: string, requests: string[], own: Partial<Flood> = {}): Flood {
  return { name, requests, transport: 'tcp', first: '', reads: true, connections: 1, always: false, ...own }
}

const MIXED = [whole('/turn'), open('/turn') + BODY, whole('/turn-hook'), open('/short') + BODY, whole('/ordinary', 'GET'), open('/ordinary') + BODY]

export const FLOODS: readonly Flood[] = [
  flood('a hook takes a turn', [whole('/turn-hook')]),
  flood('the handler takes a turn', [whole('/turn')], { always: true }),
  flood('the handler takes a turn, chunked', [open('/turn') + BODY]),
  flood('the handler takes a turn, TLS', [whole('/turn')], { transport: 'tls' }),
  flood('answered at once', [whole('/short')], { always: true }),
  flood('ordinary routes, after an exchange', [whole('/ordinary'), whole('/ordinary', 'GET')], { first: whole('/short'), always: true }),
  flood('all kinds', MIXED),
  flood('all kinds, 10 connections', MIXED, { connections: 10 }),
  flood('all kinds, 10 connections, TLS', MIXED, { connections: 10, transport: 'tls' }),
  flood('all kinds, answers not read', MIXED, { reads: false })
]
