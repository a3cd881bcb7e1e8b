// Server-sent events (WHATWG HTML, section 9.2). Only to be sent: browsers read them, and nobody posts them. The data of an event is
// one JSON text.

import type { ItemCodec } from '../../types/items.d.ts'

export const serverSentEvents: ItemCodec = Object.freeze<ItemCodec>({
  mediaTypes: ['text/event-stream'],
  frame: (json) => `data: ${json.includes('\n') || json.includes('\r') ? json.replace(/\r\n?|\n/g, '\ndata: ') : json}\n\n`,
  heartbeat: ':\n\n'
})
