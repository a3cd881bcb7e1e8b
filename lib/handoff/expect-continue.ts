// Expect: 100-continue (RFC 9110 section 10.1.1).

import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { routingConnection } from './connection.ts'

/**
 * The listener for 'checkContinue'. Without one, Node sends the 100 before it emits 'request'. A duplex route sends it when the
 * handler first reads, so that a rejection saves the upload. For any other route the 100 is sent here, before the response.
 */
export function onCheckContinue (this: Server, request: IncomingMessage, response: ServerResponse): void {
  // If the app has a listener too, that one answers or emits 'request', as it would without this plugin.
  if (this.listenerCount('checkContinue') > 1) return
  const { writeHead } = response
  const sendContinue = (): void => {
    response.writeHead = writeHead
    if (!routingConnection(request)?.claim) response.writeContinue()
  }
  // An answer given while the request is routed must not overtake the 100.
  response.writeHead = ((...args: Parameters<typeof writeHead>) => {
    sendContinue()
    return response.writeHead(...args)
  }) as typeof writeHead
  this.emit('request', request, response)
  if (response.writeHead !== writeHead) sendContinue()
}
