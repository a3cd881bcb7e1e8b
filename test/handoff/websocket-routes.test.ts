// Which handshakes belong to a proxy: as a router would find their routes.

import t from 'tap'
import { WebSocketRoutes } from '../../lib/handoff/websocket-routes.ts'

t.test('the best route decides', async (t) => {
  const routes = new WebSocketRoutes()
  t.equal(routes.isProxied('/x'), false, 'there is no route')
  routes.add('/*', true)
  routes.add('/chat', false)
  routes.add('/:tenant/own', false)
  routes.add('/svc/*', true)
  routes.add('/svc/:id(^\\d+$)', false)
  routes.add('/svc/fix/*', false)
  routes.add('/file-:name', false)
  for (const [target, isProxied] of [
    ['/', true], ['/x/y', true], ['/chat', false], ['/chat?a/b', false], ['/c%68at', false], ['/chat/', true], ['/%ff', true], ['/x/own', false], ['//own', true], ['/svc/own', false],
    ['/svc/', true], ['/svc', true], ['/svc/7', false], ['/svc/x/y', true], ['/file-', true], ['/svc/7/8', true], ['/svc/fix/a', false], ['/svc/fix', false], ['/file-a', false]
  ] as const) t.equal(routes.isProxied(target), isProxied, target)
})
