// What an operator sees of an open exchange.

import type { ExchangeState } from '../../types/index.d.ts'
import type { Life } from './life.ts'

interface Facts {
  handlerHasBegun: boolean
  isTunnel: boolean
  /** Of the request */
  hasBody: boolean
}

/** What an exchange is doing, in one word. The first line that fits applies. */
export function stateOf ({ connection, goodbye, request, response }: Life, { handlerHasBegun, isTunnel, hasBody }: Facts): ExchangeState {
  if (connection === 'detached') return 'detached'
  if (goodbye === 'said') return 'closing'
  if (isTunnel) return 'tunnel'
  if (response === 'from Fastify') return 'answer'
  if (response === 'complete') return 'reading'
  if (response === 'none') return handlerHasBegun ? 'handler' : 'hooks'
  return hasBody && request === 'open' ? 'both' : 'writing'
}
