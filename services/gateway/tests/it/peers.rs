//! The services behind the door, answering as a test says.

use holdfast_proto::{
    auth::v1 as auth, catalog::v1 as catalog, events::v1 as events, inventory::v1 as inventory,
    notifications::v1 as notifications, orders::v1 as orders, payments::v1 as payments,
    reviews::v1 as reviews, users::v1 as users, webhooks::v1 as webhooks,
};
use holdfast_testkit::scripted_peer;

scripted_peer! {
    pub(crate) struct Auth: auth::auth_service_server::AuthService {
        register(auth::RegisterRequest) -> auth::RegisterResponse;
        login(auth::LoginRequest) -> auth::LoginResponse;
        refresh(auth::RefreshRequest) -> auth::RefreshResponse;
        logout(auth::LogoutRequest) -> auth::LogoutResponse;
        list_sessions(auth::ListSessionsRequest) -> auth::ListSessionsResponse;
        end_session(auth::EndSessionRequest) -> auth::EndSessionResponse;
        is_session_open(auth::IsSessionOpenRequest) -> auth::IsSessionOpenResponse;
        get_account(auth::GetAccountRequest) -> auth::GetAccountResponse;
        list_accounts(auth::ListAccountsRequest) -> auth::ListAccountsResponse;
        set_role(auth::SetRoleRequest) -> auth::SetRoleResponse;
        erase_account(auth::EraseAccountRequest) -> auth::EraseAccountResponse;
        set_active(auth::SetActiveRequest) -> auth::SetActiveResponse;
        change_password(auth::ChangePasswordRequest) -> auth::ChangePasswordResponse;
        get_keys(auth::GetKeysRequest) -> auth::GetKeysResponse;
    } unscripted {
        watch_revocations(auth::WatchRevocationsRequest) -> auth::WatchRevocationsResponse as WatchRevocationsStream;
    }
}

scripted_peer! {
    pub(crate) struct Users: users::users_service_server::UsersService {
        create_profile(users::CreateProfileRequest) -> users::CreateProfileResponse;
        get_profile(users::GetProfileRequest) -> users::GetProfileResponse;
        get_profiles(users::GetProfilesRequest) -> users::GetProfilesResponse;
        update_profile(users::UpdateProfileRequest) -> users::UpdateProfileResponse;
        list_addresses(users::ListAddressesRequest) -> users::ListAddressesResponse;
        add_address(users::AddAddressRequest) -> users::AddAddressResponse;
        change_address(users::ChangeAddressRequest) -> users::ChangeAddressResponse;
        remove_address(users::RemoveAddressRequest) -> users::RemoveAddressResponse;
    }
}

scripted_peer! {
    pub(crate) struct Catalog: catalog::catalog_service_server::CatalogService {
        create_product(catalog::CreateProductRequest) -> catalog::CreateProductResponse;
        create_products(catalog::CreateProductsRequest) -> catalog::CreateProductsResponse;
        publish_products(catalog::PublishProductsRequest) -> catalog::PublishProductsResponse;
        get_product(catalog::GetProductRequest) -> catalog::GetProductResponse;
        list_products(catalog::ListProductsRequest) -> catalog::ListProductsResponse;
        quote_variants(catalog::QuoteVariantsRequest) -> catalog::QuoteVariantsResponse;
        update_product(catalog::UpdateProductRequest) -> catalog::UpdateProductResponse;
        delete_product(catalog::DeleteProductRequest) -> catalog::DeleteProductResponse;
        add_variant(catalog::AddVariantRequest) -> catalog::AddVariantResponse;
        update_variant(catalog::UpdateVariantRequest) -> catalog::UpdateVariantResponse;
        delete_variant(catalog::DeleteVariantRequest) -> catalog::DeleteVariantResponse;
        list_categories(catalog::ListCategoriesRequest) -> catalog::ListCategoriesResponse;
        get_category(catalog::GetCategoryRequest) -> catalog::GetCategoryResponse;
        create_category(catalog::CreateCategoryRequest) -> catalog::CreateCategoryResponse;
        update_category(catalog::UpdateCategoryRequest) -> catalog::UpdateCategoryResponse;
        delete_category(catalog::DeleteCategoryRequest) -> catalog::DeleteCategoryResponse;
    }
}

scripted_peer! {
    pub(crate) struct Events: events::events_service_server::EventsService {
        list_events(events::ListEventsRequest) -> events::ListEventsResponse;
        get_event(events::GetEventRequest) -> events::GetEventResponse;
        get_layout(events::GetLayoutRequest) -> events::GetLayoutResponse;
        list_seats(events::ListSeatsRequest) -> events::ListSeatsResponse;
        create_event(events::CreateEventRequest) -> events::CreateEventResponse;
        change_event(events::ChangeEventRequest) -> events::ChangeEventResponse;
        replace_layout(events::ReplaceLayoutRequest) -> events::ReplaceLayoutResponse;
        publish_event(events::PublishEventRequest) -> events::PublishEventResponse;
        cancel_event(events::CancelEventRequest) -> events::CancelEventResponse;
    }
}

scripted_peer! {
    pub(crate) struct Inventory: inventory::inventory_service_server::InventoryService {
        reserve(inventory::ReserveRequest) -> inventory::ReserveResponse;
        stand(inventory::StandRequest) -> inventory::StandResponse;
        extend(inventory::ExtendRequest) -> inventory::ExtendResponse;
        bind(inventory::BindRequest) -> inventory::BindResponse;
        commit(inventory::CommitRequest) -> inventory::CommitResponse;
        release(inventory::ReleaseRequest) -> inventory::ReleaseResponse;
        r#return(inventory::ReturnRequest) -> inventory::ReturnResponse;
        adjust(inventory::AdjustRequest) -> inventory::AdjustResponse;
        set_policy(inventory::SetPolicyRequest) -> inventory::SetPolicyResponse;
        get_pools(inventory::GetPoolsRequest) -> inventory::GetPoolsResponse;
        list_pools(inventory::ListPoolsRequest) -> inventory::ListPoolsResponse;
        list_movements(inventory::ListMovementsRequest) -> inventory::ListMovementsResponse;
    } unscripted {
        watch(inventory::WatchRequest) -> inventory::WatchResponse as WatchStream;
    }
}

scripted_peer! {
    pub(crate) struct Notifications: notifications::notifications_service_server::NotificationsService {
        list_notifications(notifications::ListNotificationsRequest) -> notifications::ListNotificationsResponse;
        read_notification(notifications::ReadNotificationRequest) -> notifications::ReadNotificationResponse;
    }
}

scripted_peer! {
    pub(crate) struct Orders: orders::orders_service_server::OrdersService {
        place_order(orders::PlaceOrderRequest) -> orders::PlaceOrderResponse;
        get_order(orders::GetOrderRequest) -> orders::GetOrderResponse;
        list_orders(orders::ListOrdersRequest) -> orders::ListOrdersResponse;
        list_order_events(orders::ListOrderEventsRequest) -> orders::ListOrderEventsResponse;
        cancel_order(orders::CancelOrderRequest) -> orders::CancelOrderResponse;
        refund_order(orders::RefundOrderRequest) -> orders::RefundOrderResponse;
        resume_order(orders::ResumeOrderRequest) -> orders::ResumeOrderResponse;
        ship_order(orders::ShipOrderRequest) -> orders::ShipOrderResponse;
        deliver_order(orders::DeliverOrderRequest) -> orders::DeliverOrderResponse;
        create_voucher(orders::CreateVoucherRequest) -> orders::CreateVoucherResponse;
        get_voucher(orders::GetVoucherRequest) -> orders::GetVoucherResponse;
        list_vouchers(orders::ListVouchersRequest) -> orders::ListVouchersResponse;
        change_voucher(orders::ChangeVoucherRequest) -> orders::ChangeVoucherResponse;
    }
}

scripted_peer! {
    pub(crate) struct Payments: payments::payments_service_server::PaymentsService {
        validate_method(payments::ValidateMethodRequest) -> payments::ValidateMethodResponse;
        authorize(payments::AuthorizeRequest) -> payments::AuthorizeResponse;
        capture(payments::CaptureRequest) -> payments::CaptureResponse;
        void(payments::VoidRequest) -> payments::VoidResponse;
        refund(payments::RefundRequest) -> payments::RefundResponse;
        get_payment(payments::GetPaymentRequest) -> payments::GetPaymentResponse;
        save_payment_method(payments::SavePaymentMethodRequest) -> payments::SavePaymentMethodResponse;
        list_payment_methods(payments::ListPaymentMethodsRequest) -> payments::ListPaymentMethodsResponse;
        list_points(payments::ListPointsRequest) -> payments::ListPointsResponse;
        complete_sandbox_challenge(payments::CompleteSandboxChallengeRequest) -> payments::CompleteSandboxChallengeResponse;
        pay_sandbox_slip(payments::PaySandboxSlipRequest) -> payments::PaySandboxSlipResponse;
    }
}

scripted_peer! {
    pub(crate) struct Reviews: reviews::reviews_service_server::ReviewsService {
        list_reviews(reviews::ListReviewsRequest) -> reviews::ListReviewsResponse;
        get_review(reviews::GetReviewRequest) -> reviews::GetReviewResponse;
        write_review(reviews::WriteReviewRequest) -> reviews::WriteReviewResponse;
        change_review(reviews::ChangeReviewRequest) -> reviews::ChangeReviewResponse;
        withdraw_review(reviews::WithdrawReviewRequest) -> reviews::WithdrawReviewResponse;
        moderate_review(reviews::ModerateReviewRequest) -> reviews::ModerateReviewResponse;
    }
}

scripted_peer! {
    pub(crate) struct Webhooks: webhooks::webhooks_service_server::WebhooksService {
        create_subscription(webhooks::CreateSubscriptionRequest) -> webhooks::CreateSubscriptionResponse;
        list_subscriptions(webhooks::ListSubscriptionsRequest) -> webhooks::ListSubscriptionsResponse;
        get_subscription(webhooks::GetSubscriptionRequest) -> webhooks::GetSubscriptionResponse;
        delete_subscription(webhooks::DeleteSubscriptionRequest) -> webhooks::DeleteSubscriptionResponse;
        enable_subscription(webhooks::EnableSubscriptionRequest) -> webhooks::EnableSubscriptionResponse;
        rotate_secret(webhooks::RotateSecretRequest) -> webhooks::RotateSecretResponse;
        replay(webhooks::ReplayRequest) -> webhooks::ReplayResponse;
        list_attempts(webhooks::ListAttemptsRequest) -> webhooks::ListAttemptsResponse;
        list_messages(webhooks::ListMessagesRequest) -> webhooks::ListMessagesResponse;
    }
}
