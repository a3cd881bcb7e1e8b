// Events of exchanges, published on node:diagnostics_channel. They cost nothing while nobody subscribes.

import { type Channel, channel } from 'node:diagnostics_channel'
import type { FastifyReply } from 'fastify'
import type { ExchangeEvent, HttpDuplex } from '../../types/index.d.ts'

/** `reply.duplex` was used for the first time. */
export const started: Channel = channel('fastify-duplex.exchange.start')
/** The response head is about to be sent. */
export const headWritten: Channel = channel('fastify-duplex.exchange.head')
/** The response is complete, and the request is complete or nobody reads it. */
export const finished: Channel = channel('fastify-duplex.exchange.finish')
/** The exchange has failed with `error`, after its head or together with its connection. */
export const failed: Channel = channel('fastify-duplex.exchange.error')

/** Publishes an event of an exchange on a channel. `error` is for `failed` only. */
export function publish (to: Channel, stream: HttpDuplex, reply: FastifyReply, error?: Error): void {
  if (!to.hasSubscribers) return
  const { framing, bytesRead, bytesWritten } = stream
  const event: ExchangeEvent = { request: reply.request, reply, stream, framing, bytesRead, bytesWritten, duration: reply.elapsedTime, error }
  to.publish(event)
}
